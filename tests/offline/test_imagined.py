"""All four jobs, run against an imagined tailnet that is played 60 times as fast."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from support.captures import START
from support.processes import Ran, complaints, run, series, started, wait_until
from support.programs import calls, program

SPEED = 60
POLICY = ("--max-relay-seconds", "60", "--cooldown-seconds", "120")
PEERS = '[[peers]]\nname = "nas"\nnat = "public"\n[[peers]]\nname = "rpi3"\nnat = "public"\n'
STUCK = '[[events]]\nkind = "stuck"\nat = 60\npeers = ["nas"]\n'


class Node(NamedTuple):
    """A host in that tailnet."""

    box: Path
    begun: float

    def at(self) -> int:
        """Returns the imagined time, in Unix seconds."""
        return START + int((time.monotonic() - self.begun) * SPEED)

    def job(self, name: str, *options: str) -> Ran:
        """Runs a job at that time."""
        where = (
            "--socket",
            f"{self.box}/s",
            "--source",
            "localapi",
            "--metrics-path",
            f"{self.box}/{name}.prom",
        )
        return run(name, *where, "--now", str(self.at()), *options, programs=self.box / "bin")

    def minute(self) -> list[str]:
        """Does what timers do within a minute, and returns what the watchdog says."""
        self.job("keepalive", "--count", "1", "--ping-timeout", "0.5")
        return self.job("watchdog", "--state-dir", f"{self.box}/state", *POLICY).stdout.splitlines()

    def minutes_until(self, word: str) -> list[str]:
        """Lives on until the watchdog says something of the kind; returns all that it said."""
        said: list[str] = []

        def has_come() -> bool:
            said.extend(self.minute())
            return any(line.startswith(word) for line in said)

        wait_until(has_come, f"the watchdog says {word}")
        return said

    def sample(self, job: str, name: str) -> float:
        """Returns a metric that a job wrote last."""
        return series((self.box / f"{job}.prom").read_text())[name]


@contextmanager
def _node(box: Path, scenario: str) -> Generator[Node]:
    (box / "scenario.toml").write_text(f'summary = "x"\nlasts = "1d"\n{scenario}')
    (box / "bin").mkdir()
    with started(
        "stand-in",
        "--scenario",
        f"{box}/scenario.toml",
        "--socket",
        f"{box}/s",
        "--speed",
        str(SPEED),
    ) as playing:
        begun = time.monotonic()
        program(box / "bin", "systemctl", f"kill -HUP {playing.pid}")
        wait_until((box / "s").exists, "it listens")
        yield Node(box, begun)


def test_a_restart_cures_what_it_can(box: Path) -> None:
    with _node(box, PEERS + STUCK) as node:
        said = node.minutes_until("RESTART")
        assert [line.split(":")[0] for line in said if "nas" in line][-1] == "RESTART"
        wait_until(lambda: not node.minute(), "all is well again")
        for job in ("exporter", "native-metrics"):
            assert node.job(job).status == 0
        assert node.sample("exporter", 'tailscale_peer_direct{peer="nas"}') == 1
        assert node.sample("keepalive", 'tailscale_keepalive_peers{result="direct"}') == 2
        assert node.sample("native-metrics", "tailscale_native_metrics_up") == 1
        assert node.sample("watchdog", "tailscale_watchdog_restarts_total") == 1
        assert calls(box / "bin", "systemctl") == ["restart tailscaled.service"]


def test_a_permanent_relay_is_restarted_for_again_and_again(box: Path) -> None:
    with _node(box, PEERS + '[[peers]]\nname = "hard"\nnat = "hard"\n') as node:
        wait_until(
            lambda: (node.minute(), len(calls(box / "bin", "systemctl")) == 2)[1],
            "there were two restarts",
        )
        assert node.sample("watchdog", 'tailscale_watchdog_peer_state{peer="hard"}') == 1
        path = 'tailscale_peer_path{path="derp",peer="hard"}'
        wait_until(
            lambda: (node.minute(), node.job("exporter"), node.sample("exporter", path) == 1)[-1],
            "it is on relay again",
        )


def test_without_the_control_server_a_restart_leaves_no_peers_until_it_is_back(box: Path) -> None:
    outage = '[[events]]\nkind = "control-outage"\nat = 30\nlasts = 420\n'
    with _node(box, PEERS + STUCK + outage) as node:
        node.minutes_until("RESTART")
        assert node.minute() == []
        seen = node.job("exporter")
        assert seen.status == 0
        assert node.sample("exporter", "tailscale_up") == 0
        wait_until(
            lambda: (node.job("exporter"), node.sample("exporter", "tailscale_up") == 1)[1],
            "the peers are back",
        )


@pytest.mark.parametrize("options", [(), ("--scenario", "healthy", "--capture", "c")])
def test_it_plays_one_thing(box: Path, options: tuple[str, ...]) -> None:
    assert run("stand-in", "--socket", f"{box}/s", *options).status == 2


def test_a_scenario_that_is_none_is_one_line(box: Path) -> None:
    ran = run("stand-in", "--socket", f"{box}/s", "--scenario", "no-such")
    assert ran.status == 1
    assert complaints("stand-in", ran)[0].startswith(
        "reading the scenario no-such: No such file or directory; "
    )
