"""`tsfc peers --watch` on a terminal: the screen, its keys, and its end."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.captures import START, seen, text
from support.processes import started, wait_until
from support.statuses import peer
from support.tmux import NORMAL, Window, window

pytestmark = pytest.mark.slow

SIZES = [(80, 24), (50, 20)]
PEERS = 40
CAPTURE = text([seen(START, *(peer(f"host{number}", "derp") for number in range(1, PEERS + 1)))])
CRASH = """
from tsfc.view import keys
def decode(data):
    raise RuntimeError("a defect")
keys.decode = decode
from tsfc.cli import main
main.main()
"""
"A program with a defect that each key reveals."


@contextmanager
def _tailscaled(box: Path) -> Generator[None, None, None]:
    """Run the stand-in with the peers."""
    (box / "capture").write_text(CAPTURE)
    (box / "s").unlink(missing_ok=True)
    with started("stand-in", "--capture", f"{box}/capture", "--socket", f"{box}/s"):
        wait_until((box / "s").exists, "the stand-in listens")
        yield


def _command(box: Path, *program: str) -> tuple[str, ...]:
    return (
        *(program or (sys.executable, "-m", "tsfc")),
        *("peers", "--watch", "0.2", "--socket", f"{box}/s", "--source", "localapi"),
        *("--watchdog-metrics", f"{box}/w.prom"),
    )


@contextmanager
def _watching(
    box: Path, size: tuple[int, int] = (80, 24), command: Sequence[str] = ()
) -> Generator[Window, None, None]:
    """Watch the peers of the stand-in."""
    with (
        _tailscaled(box),
        window(box, command or _command(box), *size) as shown,
    ):
        shown.wait_for("host1 ", "q: quit")
        yield shown


def _assert_restored(shown: Window, status: int) -> None:
    """The terminal is as before the program, and shows nothing of its screen."""
    screen = shown.wait_for(f"status {status}", NORMAL)
    assert screen.startswith("before\n")
    assert "host1" not in screen
    assert not shown.is_alternate()
    assert shown.shows_cursor()


def _pid(box: Path) -> int:
    """Process ID of the program in the window."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--watch" in words and f"{box}/s".encode() in words:
            return int(directory.name)
    raise AssertionError("it does not run")


@pytest.mark.parametrize("size", SIZES)
def test_it_fills_the_screen_scrolls_and_quits(box: Path, size: tuple[int, int]) -> None:
    columns, lines = size
    with _watching(box, size) as shown:
        assert shown.is_alternate()
        assert not shown.shows_cursor()
        screen = shown.text().split("\n")
        assert re.fullmatch(r"tsfc peers, every 0\.2 s +\d\d:\d\d:\d\d", screen[0])
        assert max(map(len, screen)) <= columns
        assert len(screen) == lines + 1
        part = re.search(rf"peers 1 to (\d+) of {PEERS} +j/k: scroll, q: quit\n", shown.text())
        assert part
        room = int(part[1])
        for keys, first in (
            (("j",), 2),
            (("Down", "Down"), 4),
            (("k",), 3),
            (("Up",), 2),
            (("PageDown",), 2 + room),
            (("PageUp",), 2),
            (("G",), PEERS - room + 1),
            (("g",), 1),
            (("End",), PEERS - room + 1),
            (("Home",), 1),
        ):
            shown.press(*keys)
            screen_now = shown.wait_for(f"peers {first} to {first + room - 1} of {PEERS}")
            assert f"\nhost{first} " in screen_now
        shown.press("q")
        _assert_restored(shown, 0)


def test_a_new_size_is_drawn_at_once(box: Path) -> None:
    with _watching(box) as shown:
        shown.wait_for("handshake")
        shown.call("resize-window", "-x", "40", "-y", "20")
        wait_until(lambda: "handshake" not in shown.text(), "the column is dropped")
        assert shown.text().split("\n")[19].endswith("q: quit")
        shown.call("resize-window", "-x", "100", "-y", "60")
        shown.wait_for(f"host{PEERS} ", "sent")


def test_while_tailscaled_is_gone_the_last_table_is_dimmed(box: Path) -> None:
    with window(box, _command(box), 80, 24) as shown:
        shown.wait_for("no answer for ", "is tailscaled running?")
        with _tailscaled(box):
            shown.wait_for("host1 ", "tsfc peers, every 0.2 s")
            assert "\x1b[2mhost1 " not in shown.colored()
            shown.press("j")
            shown.wait_for("peers 2 to ")
        shown.wait_for("no answer for 1s", "host2 ")
        assert "\x1b[2mhost2 " in shown.colored()
        shown.wait_for("no answer for 2s")  # it is not frozen
        shown.press("k")
        shown.wait_for("peers 1 to ")
        with _tailscaled(box):
            shown.wait_for("tsfc peers, every 0.2 s")
            assert "\x1b[2mhost1 " not in shown.colored()
        shown.press("q")
        _assert_restored(shown, 0)


def test_a_tailscaled_that_hangs_does_not_freeze_the_screen(box: Path) -> None:
    (box / "capture").write_text(CAPTURE)
    with started("stand-in", "--capture", f"{box}/capture", "--socket", f"{box}/s") as daemon:
        wait_until((box / "s").exists, "the stand-in listens")
        with window(box, _command(box), 80, 24) as shown:
            shown.wait_for("host1 ")
            daemon.send_signal(signal.SIGSTOP)
            shown.wait_for("no answer for 3s", "host1 ")
            shown.press("j")
            shown.wait_for("host2 ", "peers 2 to ")
            shown.press("q")
            _assert_restored(shown, 0)


@pytest.mark.parametrize("key", ["q", "C-c"])
def test_a_key_ends_it_quietly_even_before_the_first_answer(box: Path, key: str) -> None:
    with window(box, _command(box), 80, 24) as shown:
        shown.wait_for("no answer for ")
        shown.press(key)
        _assert_restored(shown, 0)
        assert shown.text().split() == ["before", "status", "0", *NORMAL.split()]


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_restores_the_terminal(box: Path, number: signal.Signals, status: int) -> None:
    with _watching(box) as shown:
        os.kill(_pid(box), number)
        _assert_restored(shown, status)


def test_keys_that_would_keep_the_screen_do_nothing(box: Path) -> None:
    """Ctrl-Z and Ctrl-backslash."""
    with _watching(box) as shown:
        shown.press("C-z", "C-\\", "j")
        shown.wait_for("peers 2 to ")
        assert shown.is_alternate()


def test_a_stopped_process_draws_again_when_it_continues(box: Path) -> None:
    with _watching(box) as shown:
        pid = _pid(box)
        os.kill(pid, signal.SIGSTOP)
        shown.call("send-keys", "-R")  # clears the screen
        wait_until(lambda: "host1" not in shown.text(), "the screen is clear")
        os.kill(pid, signal.SIGCONT)
        shown.wait_for("host1 ", "q: quit")


def test_a_defect_restores_the_terminal(box: Path) -> None:
    with _watching(box, command=_command(box, sys.executable, "-c", CRASH)) as shown:
        shown.press("j")
        screen = shown.wait_for("RuntimeError: a defect", "status 1", NORMAL)
        assert "host1" not in screen
        assert not shown.is_alternate()
        assert shown.shows_cursor()


def test_without_a_keyboard_a_signal_ends_it(box: Path) -> None:
    command = ("sh", "-c", f"exec {shlex.join(_command(box))} </dev/null")
    with _watching(box, command=command) as shown:
        assert shown.is_alternate()
        shown.press("C-c")
        _assert_restored(shown, 0)


@pytest.mark.parametrize(
    "around",
    [pytest.param("TERM=dumb", id="a terminal without a screen"), pytest.param("", id="a pipe")],
)
def test_without_a_screen_the_table_is_printed_again_and_again(box: Path, around: str) -> None:
    command = f"{around} {shlex.join(_command(box))}{'' if around else ' | cat'}"
    with _tailscaled(box), window(box, ("sh", "-c", command), 80, 24) as shown:
        wait_until(
            lambda: shown.call("capture-pane", "-p", "-S", "-").count("host1 ") > 1,
            "the table is printed twice",
        )
        assert not shown.is_alternate()
