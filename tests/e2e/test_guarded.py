"""The guarded policy on a real tailnet, with the helper of the units on a booted node.

The watchdog runs when a test says so. It waits for minutes, which tests do not: they
make its state older instead (`Guarded.after`). It reads the status from a pipe, so that
it does not know how long ago tailscaled started.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pytest

from lab import NAT, Lab
from support.hosts import TSFC
from support.tailnets import Booted, booted_node

COOLDOWN_SECONDS = 10
"As short as the helper allows. The policy itself waits for the end of an experiment."
INSTALL = (
    "watchdog",
    "--watchdog-policy=guarded",
    "--watchdog-remedies=restart,other-port",
    f"--watchdog-cooldown-seconds={COOLDOWN_SECONDS}",
)
POLICY = (
    "--policy=guarded",
    "--remedies=restart,other-port",
    f"--cooldown-seconds={COOLDOWN_SECONDS}",
    "--restart-socket=/run/tailscale-watchdog/restart.sock",
)
STATE = "/var/lib/guarded"
DEADLINE = 60.0
CURE_SECONDS = 10.0
"Time in which a cured peer is direct (`docs/tailscale.md`)."
SILENCE_SECONDS = 150.0
"Time after which tailscaled has noticed that the coordination server is silent."
DETECTED = "DETECTED: bravo transitioned to relay"
RESTART = "RESTART: bravo on relay for Ns, restarting tailscaled"
NO_EFFECT = "OUTCOME: bravo still on relay Ns after the restart: no effect (0 of 1)"
PATIENT = "PATIENT: bravo on relay for Ns; restarts helped 0 of 1 times: next worth it at Ns"
INSTANTS = frozenset(
    {
        "all_offline_since",
        "at",
        "blind_since",
        "direct_at",
        "judge_at",
        "since",
        "steady_since",
        "told_at",
        "unix",
    }
)
"Keys of times in `state.json`."


@dataclass(frozen=True)
class Guarded:
    """A booted node `alpha` with one peer, `bravo`."""

    lab: Lab
    alpha: Booted

    def path(self) -> str:
        """Ping the peer; return the path to it."""
        return self.alpha.pinged("bravo")

    def until(self, path: str, timeout: float = DEADLINE) -> float:
        """Ping the peer until it has a path; return the seconds that it took."""
        return self.lab.wait_until(lambda: self.path() == path, timeout)

    def stays_on_relay(self) -> None:
        """Check that the peer stays on relay until the helper allows a restart."""
        end = time.monotonic() + COOLDOWN_SECONDS + 1
        self.lab.wait_until(lambda: self.path() != "derp" or time.monotonic() > end, DEADLINE)
        assert self.path() == "derp"

    def watch(self, *options: str) -> list[str]:
        """Run the watchdog, which must succeed; return its lines, without times."""
        status = f"{self.alpha.node.programs}/tailscale status --json"
        watchdog = (TSFC, "watchdog", "--status-file=-", f"--state-dir={STATE}", *POLICY, *options)
        ran = self.alpha.host.machine.run("sh", "-c", f'{status} | "$@"', "sh", *watchdog)
        assert not ran.stderr, ran
        return re.sub(r"\b\d+s\b", "Ns", ran.stdout).splitlines()

    def after(self, seconds: int, *options: str) -> list[str]:
        """Run the watchdog as if its state had been written some seconds earlier.

        The state has no boot clocks then: they would tell that nobody has waited.
        """

        def aged(part: dict[str, Any]) -> dict[str, Any]:
            return {
                key: value - seconds if key in INSTANTS else value
                for key, value in part.items()
                if key != "boot"
            }

        file = self.alpha.host.machine.path(f"{STATE}/state.json")
        file.write_text(json.dumps(json.loads(file.read_text(), object_hook=aged)))
        return self.watch(*options)

    def starts(self) -> int:
        """Number of starts of tailscaled."""
        journal = self.alpha.host.machine.journal("--unit=tailscaled.service")
        return sum("Program starting: v" in line for line in journal)


@contextmanager
def guarded(release: str, bravo: NAT = NAT.EASY) -> Generator[Guarded]:
    """Start a lab in which nothing but the test runs the watchdog."""
    with (
        Lab(version=release, bravo=bravo) as lab,
        booted_node(lab, "alpha", NAT.EASY, *INSTALL) as alpha,
    ):
        alpha.host.machine.run("systemctl", "stop", "tailscale-watchdog.timer")
        yield Guarded(lab, alpha)


def block_port(lab: Lab) -> None:
    """Let the router of alpha drop what comes from the port of tailscaled."""
    lab.block_port("alpha")


def keep_mappings(lab: Lab) -> None:
    """Let the NAT of alpha translate to an address that its router has lost."""
    lab.readdress("alpha")


@pytest.mark.parametrize("fault", [block_port, keep_mappings])
def test_another_port_cures_what_a_restart_does_not(
    release: str, fault: Callable[[Lab], None]
) -> None:
    with guarded(release) as node:
        # The watchdog has seen the peer direct.
        node.until("direct")
        assert node.watch() == []
        fault(node.lab)
        node.until("derp")
        assert node.watch() == [DETECTED]

        # A restart comes first. It is not repeated.
        assert node.after(700) == [RESTART]
        node.until("derp")
        node.stays_on_relay()
        assert node.after(301, "--remedies=restart") == [NO_EFFECT]
        assert node.after(600, "--remedies=restart") == [PATIENT]
        assert node.starts() == 2

        # Another port helps.
        assert node.watch() == [
            "OTHER-PORT: bravo on relay for Ns, restarting tailscaled on another port"
        ]
        node.until("direct", CURE_SECONDS)
        assert node.watch() == ["OUTCOME: bravo direct Ns after the port change: helped (1 of 1)"]
        assert node.starts() == 3


def test_a_peer_behind_a_hard_nat_is_reported_and_causes_no_restart(release: str) -> None:
    with guarded(release, bravo=NAT.HARD) as node:
        node.until("derp")
        assert node.watch() == [DETECTED]
        assert node.after(700) == [
            "NEVER-DIRECT: bravo on relay for Ns, never seen direct: no restart for it"
        ]
        for _ in range(3):
            node.until("derp")
            assert node.after(86400) == []
        assert node.starts() == 1


def test_a_node_without_the_control_server_is_not_restarted(release: str) -> None:
    with guarded(release) as node:
        node.until("direct")
        assert node.watch() == []
        node.lab.block_control("alpha")
        node.lab.block_udp("alpha")
        node.lab.wait_until(lambda: not node.alpha.node.status()["Self"]["Online"], DEADLINE)
        node.until("derp")
        assert node.watch() == [DETECTED]
        for _ in range(3):
            assert node.after(700) == [
                "HELD: bravo on relay for Ns, not restarting: the control server cannot be reached"
            ]

        # The peer is still on relay when the control server is back.
        node.lab.unblock_control("alpha")
        node.lab.wait_until(lambda: node.alpha.node.status()["Self"]["Online"], DEADLINE)
        node.until("derp")
        assert node.watch() == ["CONFIRMING: bravo on relay for Ns, restart in Ns if it stays"]
        node.lab.unblock_udp("alpha")
        node.until("direct")
        assert node.watch() == ["RECOVERED: bravo back to direct"]
        assert node.starts() == 1


def test_a_silent_control_server_causes_no_restart_before_tailscaled_notices(
    release: str,
) -> None:
    """The limit is over while `Self.Online` is still true."""
    limit = "--max-relay-seconds=60"
    with guarded(release) as node:
        node.until("direct")
        assert node.watch(limit) == []
        assert node.after(700, limit) == []
        node.lab.silence_control("alpha")
        node.lab.block_udp("alpha")
        node.until("derp")
        assert node.watch(limit) == [DETECTED]

        # The node pings the peer and the watchdog runs until the outage shows.
        said: list[str] = []

        def is_held() -> bool:
            node.path()
            said.extend(node.watch(limit))
            return said[-1].startswith(("HELD", "RESTART"))

        node.lab.wait_until(is_held, SILENCE_SECONDS)
        assert [line for line, _ in groupby(said)] == [
            "WAITING: bravo on relay for Ns (threshold: Ns)",
            "CONFIRMING: bravo on relay for Ns, restart in Ns if it stays",
            "HELD: bravo on relay for Ns, not restarting: the control server cannot be reached",
        ]
        assert node.starts() == 1


def test_a_frozen_peer_causes_one_restart(release: str) -> None:
    with guarded(release) as node:
        node.until("direct")
        assert node.watch() == []
        bravo = node.lab.node("bravo")
        bravo.freeze()
        node.until("derp")
        assert node.watch("--remedies=restart") == [DETECTED]
        assert node.after(700, "--remedies=restart") == [RESTART]
        node.until("derp")
        assert node.after(700, "--remedies=restart") == [NO_EFFECT]
        assert node.after(3600, "--remedies=restart") == [PATIENT]
        assert node.after(3600, "--remedies=restart") == [PATIENT]
        bravo.thaw()
        node.until("direct")
        assert node.watch("--remedies=restart") == ["RECOVERED: bravo back to direct"]
        assert node.starts() == 2
