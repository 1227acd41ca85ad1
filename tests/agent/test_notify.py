"""Notifications to systemd."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tsfc.agent.notify import notify, watchdog_seconds


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_notification_reaches_systemd(
    box: Path, monkeypatch: pytest.MonkeyPatch, *, is_abstract: bool
) -> None:
    name = f"{box}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name[1:]}" if is_abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name[1:]}" if is_abstract else name)
        notify("READY=1")
        assert receiver.recv(100, socket.MSG_DONTWAIT) == b"READY=1"


@pytest.mark.parametrize("path", [None, "", "relative", "/nonexistent/socket"])
def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, path: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if path is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
    notify("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "pid", "expected"),
    [
        ("60000000", None, 60.0),
        ("60000000", "this", 60.0),
        ("60000000", "1", None),
        ("0", None, None),
        ("x", None, None),
        (None, None, None),
    ],
)
def test_systemd_says_how_often_it_wants_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
    microseconds: str | None,
    pid: str | None,
    expected: float | None,
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if microseconds is not None:
        monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid.replace("this", str(os.getpid())))
    assert watchdog_seconds() == expected
