"""The watchdog as root without a helper: `systemctl` restarts tailscaled."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.programs import calls, program
from tsfc.core.watchdog.remedy import Declined, Done, Failed
from tsfc.shell import systemd, waiting

UNIT = "tailscaled.service"


@pytest.fixture
def programs(box: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH, with a `systemctl` that succeeds."""
    program(box, "systemctl")
    monkeypatch.setenv("PATH", str(box))
    return box


def show(programs: Path, load: str, active: str) -> None:
    """Set what `systemctl show` prints."""
    text = f"LoadState={load}\nActiveState={active}\n"
    (programs / "systemctl.shown").write_text(text)


@pytest.mark.parametrize("state", ["active", "activating", "reloading"])
def test_a_started_unit_is_restarted(programs: Path, state: str) -> None:
    show(programs, "loaded", state)
    assert waiting.run(systemd.restart(UNIT)) == Done()
    assert calls(programs, "systemctl") == [f"restart {UNIT}"]


@pytest.mark.parametrize("state", ["inactive", "deactivating"])
def test_a_unit_that_was_stopped_on_purpose_is_left_alone(programs: Path, state: str) -> None:
    show(programs, "loaded", state)
    assert waiting.run(systemd.restart(UNIT)) == Declined(
        f"restarting with `systemctl restart {UNIT}`: {UNIT} is stopped; a unit that was stopped "
        f"on purpose is not restarted; start it with `systemctl start {UNIT}`"
    )
    assert calls(programs, "systemctl") == []


def test_a_failed_unit_is_reset_first_so_that_no_start_limit_holds(programs: Path) -> None:
    show(programs, "loaded", "failed")
    assert waiting.run(systemd.restart(UNIT)) == Done()
    assert calls(programs, "systemctl") == [f"reset-failed {UNIT}", f"restart {UNIT}"]


@pytest.mark.parametrize("load", ["not-found", "masked", "error"])
def test_a_unit_that_is_not_loaded_gets_the_error_of_systemctl(
    box: Path, monkeypatch: pytest.MonkeyPatch, load: str
) -> None:
    """Such a unit is inactive, too."""
    program(box, "systemctl", "echo Unit is unknown. >&2; exit 5")
    monkeypatch.setenv("PATH", str(box))
    show(box, load, "inactive")
    assert "exit status 5: Unit is unknown." in str(waiting.run(systemd.restart(UNIT)))


@pytest.mark.parametrize("shown", [b"", b"\n", b"ActiveState", b"\xff=\xff\n", b"=\n=inactive\n"])
def test_a_unit_in_an_unknown_state_is_restarted(programs: Path, shown: bytes) -> None:
    (programs / "systemctl.shown").write_bytes(shown)
    assert waiting.run(systemd.restart(UNIT)) == Done()
    assert calls(programs, "systemctl") == [f"restart {UNIT}"]


PORT_FILE = "/run/tailscale-watchdog-restart/port.env"
LATER = "EnvironmentFiles=/etc/later (ignore_errors=no)\n"
USES_PORT = "ExecStart={ path=/a ; argv[]=/a --port=${PORT} $FLAGS ; pid=0 }\n"


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        ("", "it does not use the variable PORT in ExecStart="),
        ("ExecStart={ argv[]=/a --port=1 $PORTS ; }\n", "it does not use the variable PORT"),
        (USES_PORT, "its last EnvironmentFile= is not port.env of the watchdog; install the units"),
        (
            f"{USES_PORT}EnvironmentFiles={PORT_FILE} (ignore_errors=yes)\n{LATER}",
            "its last EnvironmentFile= is not port.env",
        ),
        (
            f"{USES_PORT}EnvironmentFiles=/etc/a/../{PORT_FILE} (ignore_errors=yes)\n",
            "its last EnvironmentFile= is not port.env",
        ),
    ],
)
def test_the_port_of_a_unit_that_is_not_prepared_is_not_changed(
    programs: Path, shown: str, why: str
) -> None:
    (programs / "systemctl.shown").write_text(shown)
    outcome = waiting.run(systemd.restart_on_other_port(UNIT))
    assert isinstance(outcome, Failed)
    assert outcome.detail.startswith(f"restarting {UNIT} on another port: {why}")
    assert calls(programs, "systemctl") == []
