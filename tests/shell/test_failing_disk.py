"""A disk that fails at any step of a run: nothing is restarted twice or miscounted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.processes import Completed, Forked
from support.programs import calls, program
from support.statuses import encoded, peer

T = 1_800_000_000
STUCK = f"{T - 700}\n"


class Host:
    """A host with a peer that has been on relay for too long."""

    def __init__(self, box: Path, forks: Forked) -> None:
        self.state = box / "state"
        self._box = box
        self._programs = box / "bin"
        self._forks = forks
        (box / "status.json").write_bytes(encoded(peer("nas", "derp")))

    def reset(self) -> None:
        """Return to the state before the first run."""
        for directory in (self.state, self._programs):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        program(self._programs, "systemctl", "exit 0")
        (self.state / "peer_nas").write_text(STUCK)

    def watchdog(
        self,
        now: int,
        *,
        fail_at: int | None = None,
        keeps_failing: bool = False,
        log: Path | None = None,
    ) -> Completed:
        """Run the watchdog."""
        return self._forks.run(
            *("watchdog", "--now", str(now)),
            *("--status-file", str(self._box / "status.json")),
            *("--state-dir", str(self.state)),
            *("--metrics-path", str(self._box / "watchdog.prom")),
            programs=self._programs,
            fail_at=fail_at,
            keeps_failing=keeps_failing,
            log=log,
        )

    def restarts(self) -> int:
        """How often systemctl was run."""
        return len(calls(self._programs, "systemctl"))

    def counted(self) -> int:
        """How many restarts the watchdog has counted."""
        return int((self.state / ".restart_count").read_text())


@pytest.mark.parametrize("keeps_failing", [False, True], ids=["once", "from then on"])
def test_a_restart_that_was_not_asked_for_is_never_counted(
    box: Path, forks: Forked, *, keeps_failing: bool
) -> None:
    """Whichever step fails, the next run counts what was asked for, and nothing else."""
    host = Host(box, forks)
    host.reset()
    assert host.watchdog(T, log=box / "steps").stderr == ""
    steps = (box / "steps").read_text().splitlines()
    first = next(number for number, step in enumerate(steps) if f"{host.state}" in step)

    outcomes: set[tuple[int, int]] = set()
    for number in range(first, len(steps)):
        host.reset()
        failed = host.watchdog(T, fail_at=number, keeps_failing=keeps_failing)
        where = (number, steps[number], failed)
        assert failed.status in {0, 1}, where
        assert "Traceback" not in failed.stderr, where
        outcomes.add((failed.status, host.restarts()))
        following = host.watchdog(T + 60)
        assert following.status == 0, (where, following)
        assert host.counted() == host.restarts() <= 1, (where, following)
    assert outcomes >= {(1, 0), (1, 1)}


def test_an_error_of_the_export_names_the_file(box: Path, forks: Forked) -> None:
    """Not every error has the name of a file, such as that of a full disk."""
    host = Host(box, forks)
    host.reset()
    (host.state / "peer_gone").write_text(STUCK)
    assert host.watchdog(T, log=box / "steps").status == 0
    steps = (box / "steps").read_text().splitlines()
    reported: set[str] = set()
    for number in range(len(steps)):
        host.reset()
        (host.state / "peer_gone").write_text(STUCK)
        errors = host.watchdog(T, fail_at=number).stderr.splitlines()
        reported |= {error for error in errors if error.startswith("tsfc watchdog: exporting ")}
    names = (".last_restart", ".restart_count", "peer_gone")
    advice = "check permissions and disk space, or give --state-dir"
    assert reported >= {
        f"tsfc watchdog: exporting {name} from the state in {host.state}: Input/output error; "
        f"{advice}"
        for name in names
    }
    assert {error.split()[3] for error in reported} <= {
        path.name for path in host.state.iterdir()
    } | {"peer_gone"}
