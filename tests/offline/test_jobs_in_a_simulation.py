"""All four jobs run against a fake tailscaled that plays a scenario.

The clock of the scenario belongs to the test, so nothing waits for real time.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from msgspec.structs import replace

from support.captures import START
from support.processes import Completed, error_lines, run, series, started, wait_until
from support.programs import calls, program
from tsfc.offline.fake_tailscaled.server import ScenarioPlayer, listen
from tsfc.offline.simulation import scenario
from tsfc.shell import waiting
from tsfc.shell.tailscaled import localapi

POLICY = ("--max-relay-seconds", "60", "--cooldown-seconds", "120")
PEERS = '[[peers]]\nname = "nas"\nnat = "public"\n[[peers]]\nname = "rpi3"\nnat = "public"\n'
STUCK = '[[events]]\nkind = "stuck"\nat = 60\npeers = ["nas"]\n'
LIMIT_ROUNDS = 60
"Rounds after which a test fails."


class Node:
    """A host of the simulated tailnet, with its timers."""

    def __init__(self, box: Path, text: str) -> None:
        self.box = box
        self.seconds = 0
        played = scenario.read(f'summary = "x"\nlasts = "1d"\n{text}'.encode(), "test").unwrap()
        self.player = ScenarioPlayer(
            replace(played, start=START), speed=1, clock=lambda: self.seconds
        )

    def job(self, name: str, *options: str) -> Completed:
        """Run a job now. If it restarts tailscaled, do that in the simulation."""
        restarts = len(self.restarts())
        ran = run(
            name,
            *("--socket", f"{self.box}/s"),
            *("--source", "localapi"),
            *("--metrics-path", f"{self.box}/{name}.prom"),
            *("--now", str(START + self.seconds)),
            *options,
            programs=self.box / "bin",
        )
        for _ in self.restarts()[restarts:]:
            self.player.restart()
        return ran

    def round(self) -> list[str]:
        """Run what the timers run in 30 seconds; return the lines of the watchdog."""
        self.seconds += 20
        self.job("keepalive", "--count", "1", "--ping-timeout", "0.5")
        self.seconds += 10
        state = f"{self.box}/state"
        return self.job(
            "watchdog", "--state-dir", state, "--unit=tailscaled.service", *POLICY
        ).stdout.splitlines()

    def rounds_until(self, is_so: Callable[[list[str]], object]) -> list[str]:
        """Run rounds until a condition of the last round's lines; return all lines."""
        lines: list[str] = []
        for _ in range(LIMIT_ROUNDS):
            last = self.round()
            lines += last
            if is_so(last):
                return lines
        raise AssertionError(lines)

    def rounds_until_restart(self) -> list[str]:
        """Run rounds until the watchdog restarts tailscaled; return all lines."""
        return self.rounds_until(lambda last: any(line.startswith("RESTART") for line in last))

    def restarts(self) -> list[str]:
        """Return the arguments of each call to systemctl."""
        return calls(self.box / "bin", "systemctl")

    def sample(self, job: str, name: str) -> float:
        """Return a metric that a job wrote last."""
        return series((self.box / f"{job}.prom").read_text())[name]


@contextmanager
def _node(box: Path, text: str) -> Generator[Node]:
    (box / "bin").mkdir()
    program(box / "bin", "systemctl", ":")
    node = Node(box, text)
    server = listen(f"{box}/s", node.player.respond).unwrap()
    thread = Thread(target=lambda: server.serve_forever(poll_interval=0.01))
    thread.start()
    try:
        yield node
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_restart_cures_a_stuck_peer(box: Path) -> None:
    with _node(box, PEERS + STUCK) as node:
        lines = node.rounds_until_restart()
        assert [line.split(":")[0] for line in lines if "nas" in line][-1] == "RESTART"
        node.rounds_until(lambda last: not last)
        for job in ("exporter", "native-metrics"):
            assert node.job(job).status == 0
        assert node.sample("exporter", 'tailscale_peer_direct{peer="nas"}') == 1
        assert node.sample("keepalive", 'tailscale_keepalive_peers{result="direct"}') == 2
        assert node.sample("native-metrics", "tailscale_native_metrics_up") == 1
        assert node.sample("watchdog", "tailscale_watchdog_restarts_total") == 1
        assert node.restarts() == ["restart tailscaled.service"]


def test_a_permanent_relay_causes_repeated_restarts(box: Path) -> None:
    with _node(box, PEERS + '[[peers]]\nname = "hard"\nnat = "hard"\n') as node:
        node.rounds_until(lambda _: len(node.restarts()) == 2)
        assert node.sample("watchdog", 'tailscale_watchdog_peer_state{peer="hard"}') == 1
        path = 'tailscale_peer_path{path="derp",peer="hard"}'
        node.rounds_until(lambda _: (node.job("exporter"), node.sample("exporter", path) == 1)[-1])


def test_no_restart_is_made_during_a_control_outage(box: Path) -> None:
    """It would leave the node without peers until the outage ends."""
    outage = '[[events]]\nkind = "control-outage"\nat = 30\nlasts = 240\n'
    with _node(box, PEERS + STUCK + outage) as node:
        lines = node.rounds_until_restart()
        assert any(line.startswith("HELD: nas on relay for") for line in lines)
        assert node.seconds >= 270
        assert node.restarts() == ["restart tailscaled.service"]


def test_peers_have_traffic_and_handshakes(box: Path) -> None:
    with _node(box, PEERS) as node:
        before, after = _received(node, 60), _received(node, 600)
        assert 0 < before["nas"] < after["nas"]
        assert before["nas"] != before["rpi3"]
        handshakes = 'tailscale_peer_last_handshake_seconds_ago{peer="nas"}'
        assert node.sample("exporter", handshakes) < 180
        assert node.sample("exporter", 'tailscale_peer_direct{peer="nas"}') == 1


def test_a_scenario_without_keepalive_has_no_traffic(box: Path) -> None:
    with _node(box, f"[node]\nkeepalive = 0\n{PEERS}") as node:
        assert _received(node, 600) == {"nas": 0, "rpi3": 0}


def _received(node: Node, seconds: int) -> dict[str, float]:
    """Let time pass; return the bytes received from each peer."""
    node.seconds += seconds
    assert node.job("exporter").status == 0
    return {
        name: node.sample("exporter", f'tailscale_peer_rx_bytes_total{{peer="{name}"}}')
        for name in ("nas", "rpi3")
    }


def test_sighup_restarts_the_simulated_tailscaled(box: Path) -> None:
    (box / "slow.toml").write_text(f'summary = "x"\nlasts = "1d"\n[node]\nstart = "1h"\n{PEERS}')

    def is_up() -> bool:
        target = "/localapi/v0/status"
        return bool(
            waiting.run(
                localapi.call(localapi.Connections(f"{box}/s"), "GET", target, timeout=10)
            ).value_or(b"")
        )

    options = ("--scenario", f"{box}/slow.toml", "--socket", f"{box}/s")
    with started("stand-in", *options) as process:
        wait_until(is_up, "the fake tailscaled responds")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: not is_up(), "its tailscaled stops")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="neither"),
        pytest.param(("--scenario", "healthy", "--capture", "c"), id="both"),
    ],
)
def test_either_a_capture_or_a_scenario_is_required(box: Path, options: tuple[str, ...]) -> None:
    assert run("stand-in", "--socket", f"{box}/s", *options).status == 2


def test_an_unknown_scenario_is_an_error_of_one_line(box: Path) -> None:
    ran = run("stand-in", "--socket", f"{box}/s", "--scenario", "no-such")
    assert ran.status == 1
    assert error_lines("stand-in", ran)[0].startswith(
        "reading the scenario no-such: No such file or directory; "
    )
