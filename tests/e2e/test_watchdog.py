"""The watchdog on a real tailnet, as a unit under a systemd in a node's network."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from itertools import groupby, pairwise
from typing import Any

import pytest

from lab import NAT, NEWEST, OLDEST, Lab
from lab.nodes import ALWAYS_DERP, NEVER_DIRECT
from support.booted import Machine
from support.hosts import METRICS, SOCKET, service
from support.tailnets import Booted, booted_node

MAX_RELAY_SECONDS = 14
"Longer than keepalive needs for a direct path: ten seconds (`docs/tailscale.md`)."
INSTALL = ("--watchdog-interval=2s", "--exporter-interval=2s")
PATIENT = (*INSTALL, "--watchdog-max-relay-seconds=600", "--watchdog-cooldown-seconds=600")
HASTY = (
    *INSTALL,
    f"--watchdog-max-relay-seconds={MAX_RELAY_SECONDS}",
    "--watchdog-cooldown-seconds=600",
)
STUCK = {NEWEST: NEVER_DIRECT, OLDEST: ALWAYS_DERP}
DEADLINE = 90.0
JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")


def wait_for(lab: Lab, booted: Booted, peer: str, *ending: str) -> None:
    """Wait until a peer's story ends like this and the run has written its metrics."""
    lab.wait_until(lambda: story(booted, peer)[-len(ending) :] == list(ending), DEADLINE)
    booted.host.machine.wait_until(service("watchdog"), "ActiveState", "inactive")


def story(booted: Booted, peer: str) -> list[str]:
    """Return the watchdog's lines about a peer, without figures and repetitions."""
    lines = [
        re.sub(r"\d+s", "Ns", line)
        for line in booted.host.said("watchdog")
        if re.match(rf"[A-Z]+: {peer} ", line)
    ]
    return [line for line, _ in groupby(lines)]


def starts(booted: Booted) -> int:
    """Return the number of starts of tailscaled."""
    return sum(
        "Program starting: v" in line
        for line in booted.host.machine.journal("--unit=tailscaled.service")
    )


def counter(booted: Booted, name: str) -> float:
    """Return a counter of the watchdog; 0 before its first run."""
    if not booted.host.machine.path(f"{METRICS}/tailscale-watchdog.prom").exists():
        return 0
    return booted.host.exported("watchdog")[f"tailscale_watchdog_{name}_total"]


def connections(machine: Machine, job: str) -> int:
    """Return the number of connections of a job that tailscaled has not accepted yet.

    They are in the network namespace of the job's sandbox.
    """
    pid = machine.show(service(job), "MainPID")
    sockets = (
        machine.run(
            "nsenter", f"--target={pid}", "--net", "cat", "/proc/net/unix", check=False
        ).stdout
        if pid != "0"
        else ""
    )
    return sockets.count(f" {SOCKET}\n")


NO_RESPONSE = re.compile(
    r"asking tailscaled for "
    r".*(the connection was closed without a response|Connection reset by peer)"
)
DETECTED = "DETECTED: bravo transitioned to relay"
WAITING = "WAITING: bravo on relay for Ns (threshold: Ns)"
RESTART = "RESTART: bravo on relay for Ns, restarting tailscaled"
COOLDOWN = "COOLDOWN: bravo exceeded threshold but in cooldown (Ns remaining)"
RECOVERED = "RECOVERED: bravo back to direct"


def test_a_node_stuck_on_relay_is_restarted_once_and_direct_afterwards(release: str) -> None:
    with (
        Lab(version=release, bravo=NAT.EASY) as lab,
        booted_node(lab, "alpha", NAT.EASY, *HASTY, environment=STUCK[release]) as alpha,
    ):
        alpha.starts_with({})
        lab.wait_until(lambda: alpha.pinged("bravo") == "derp", 30)
        wait_for(lab, alpha, "bravo", RECOVERED)
        assert story(alpha, "bravo") in (
            [DETECTED, WAITING, RESTART, RECOVERED],
            [DETECTED, WAITING, RESTART, COOLDOWN, RECOVERED],
        )
        assert alpha.path_to("bravo") == "direct"
        assert starts(alpha) == 2
        assert (
            counter(alpha, "restarts"),
            counter(alpha, "relay_detections"),
            counter(alpha, "recoveries"),
        ) == (1, 1, 0)
        assert alpha.host.failed_units() == []
        assert alpha.host.exported("watchdog")['tailscale_watchdog_peer_state{peer="bravo"}'] == 0
        lab.wait_until(
            lambda: (
                alpha.host.exported("peers").get('tailscale_peer_path{path="direct",peer="bravo"}')
                == 1
            ),
            30,
        )


def test_a_peer_behind_a_hard_nat_causes_a_restart_after_each_cooldown(release: str) -> None:
    cycle = (*INSTALL, "--watchdog-max-relay-seconds=6", "--watchdog-cooldown-seconds=12")
    with (
        Lab(version=release, bravo=NAT.HARD) as lab,
        booted_node(lab, "alpha", NAT.EASY, *cycle) as alpha,
    ):
        lab.wait_until(lambda: counter(alpha, "restarts") >= 3, DEADLINE)
        alpha.host.without_timers()
        assert story(alpha, "bravo")[:7] == [
            DETECTED,
            WAITING,
            RESTART,
            COOLDOWN,
            RESTART,
            COOLDOWN,
            RESTART,
        ]
        assert counter(alpha, "relay_detections") == 1
        assert counter(alpha, "recoveries") == 0
        restarts = counter(alpha, "restarts")
        assert starts(alpha) == 1 + restarts
        assert alpha.path_to("bravo") in {"derp", "idle"}
        ages = [
            int(age)
            for line in alpha.host.said("watchdog")
            for age in re.findall(r"^RESTART: bravo on relay for (\d+)s", line)
        ]
        assert all(later - earlier >= 12 for earlier, later in pairwise(ages)), ages


def test_an_excluded_peer_causes_no_restart(release: str) -> None:
    cycle = (
        *INSTALL,
        "--watchdog-max-relay-seconds=2",
        "--watchdog-cooldown-seconds=2",
        "--watchdog-exclude-peers=bravo",
    )
    with (
        Lab(version=release, bravo=NAT.NO_UDP) as lab,
        booted_node(lab, "alpha", NAT.EASY, *cycle) as alpha,
    ):
        lab.wait_until(
            lambda: (
                len(
                    [
                        line
                        for line in alpha.host.said("watchdog")
                        if line.startswith("EXCLUDED: bravo ")
                    ]
                )
                >= 3
            ),
            DEADLINE,
        )
        assert starts(alpha) == 1
        assert counter(alpha, "restarts") == 0


def test_a_peer_recovers_without_a_restart_when_udp_passes_again(release: str) -> None:
    with (
        Lab(version=release, bravo=NAT.EASY) as lab,
        booted_node(lab, "alpha", NAT.EASY, *PATIENT) as alpha,
    ):
        wait_for(lab, alpha, "bravo", RECOVERED)
        lab.block_udp("bravo")
        wait_for(lab, alpha, "bravo", DETECTED, WAITING)
        assert alpha.path_to("bravo") == "derp"
        assert alpha.host.exported("watchdog")['tailscale_watchdog_peer_state{peer="bravo"}'] == 1
        lab.unblock_udp("bravo")
        wait_for(lab, alpha, "bravo", RECOVERED)
        recoveries = alpha.host.said("watchdog").count(RECOVERED)
        assert recoveries >= 2
        assert counter(alpha, "recoveries") == recoveries
        assert counter(alpha, "restarts") == 0
        assert starts(alpha) == 1


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_each_job_succeeds_when_tailscaled_ends_during_its_run(release: str, how: str) -> None:
    """The run succeeds although its response never arrives, and so does the next run.

    A tailscaled that is stopped may still respond. A job without a response reports
    that, and exports nothing.
    """
    with (
        Lab(version=release, bravo=NAT.NO_UDP) as lab,
        booted_node(lab, "alpha", NAT.EASY, *PATIENT) as alpha,
    ):
        host, machine = alpha.host.without_timers(), alpha.host.machine
        lab.wait_until(lambda: alpha.path_to("bravo"), 30)
        for job in JOBS:
            host.start(job)
        state, lines_before = state_files(alpha), {job: len(host.said(job)) for job in JOBS}
        assert state == ["peer_bravo"]
        # Freeze tailscaled, and wait for the second connection of each job: the first
        # one only tests whether the socket is available.
        machine.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", "tailscaled.service")
        machine.run("systemctl", "start", "--no-block", *(service(job) for job in JOBS))
        lab.wait_until(lambda: all(connections(machine, job) == 2 for job in JOBS), 30)
        machine.run(
            "systemctl",
            *(("restart",) if how == "restart" else ("kill", "--signal=KILL")),
            "tailscaled.service",
        )
        # Each run succeeds. A job without a response reports that, and exports no
        # peers.
        for job in JOBS:
            machine.wait_until(service(job), "ActiveState", "inactive")
            assert machine.show(service(job), "Result") == "success"
        failures = {
            job: [line for line in host.said(job)[lines_before[job] :] if NO_RESPONSE.search(line)]
            for job in JOBS
        }
        assert how == "restart" or all(len(lines) == 1 for lines in failures.values()), failures
        assert (host.exported("peers")["tailscale_up"] == 0) == bool(failures["exporter"])
        assert (host.exported("native")["tailscale_native_metrics_up"] == 0) == bool(
            failures["native-metrics"]
        )
        assert state_files(alpha) == state
        # The next run sees the new tailscaled.
        lab.wait_until(lambda: alpha.path_to("bravo"), 30)
        host.start("exporter")
        assert host.exported("peers")["tailscale_up"] == 1
        assert host.failed_units() == []


def state_files(booted: Booted) -> list[str]:
    """Return the names of the state files of peers on relay."""
    return sorted(path.name for path in booted.host.machine.path(STATE_DIRECTORY).glob("peer_*"))


def test_two_watchdogs_at_both_ends_of_a_path_restart_at_most_once_each(release: str) -> None:
    with Lab(version=release) as lab, ExitStack() as stack:
        ends = {
            "bravo": stack.enter_context(
                booted_node(lab, "alpha", NAT.EASY, *HASTY, environment=STUCK[release])
            ),
            "alpha": stack.enter_context(booted_node(lab, "bravo", NAT.EASY, *HASTY)),
        }
        ends["bravo"].starts_with({})

        def have_recovered() -> bool:
            return all(
                story(end, peer)[-1:] == [f"RECOVERED: {peer} back to direct"]
                and end.path_to(peer) == "direct"
                for peer, end in ends.items()
            )

        lab.wait_until(lambda: counter(ends["bravo"], "restarts") == 1, DEADLINE)
        lab.wait_until(have_recovered, DEADLINE)
        assert all(counter(end, "restarts") <= 1 for end in ends.values())
        assert all(starts(end) == 1 + counter(end, "restarts") for end in ends.values())


STATE_DIRECTORY = "/var/lib/private/tailscale-watchdog"
CAPTURE = "/var/lib/tailscale-capture/status.ndjson.zst"
DRIFT_SECONDS = 2 * 2
"Two runs: one job may see a change a run earlier, and lines have whole seconds."


def without_complaints(lines: list[str]) -> list[str]:
    """Return the documented lines, without errors and warnings."""
    return [line for line in lines if not line.startswith("tsfc watchdog: ")]


def test_the_replay_of_a_capture_agrees_with_the_journal_of_the_watchdog(release: str) -> None:
    """A capture runs about 0.1 s before each run of the watchdog."""
    with (
        Lab(version=release, bravo=NAT.EASY) as lab,
        booted_node(
            lab, "alpha", NAT.EASY, *JOBS, "capture", *HASTY, environment=STUCK[release]
        ) as alpha,
    ):
        # Put the node on relay, with no timer running and no state.
        host, machine = alpha.host.without_timers(), alpha.host.machine
        machine.run("systemctl", "stop", "tailscale-capture.timer")
        lab.wait_until(lambda: alpha.pinged("bravo") == "derp", 30)
        for job in ("watchdog", "capture"):
            machine.wait_until(service(job), "ActiveState", "inactive")
        machine.run(
            "sh",
            "-c",
            f"rm -f {CAPTURE} {STATE_DIRECTORY}/* {STATE_DIRECTORY}/.[a-z]*",
        )
        # Run capture and watchdog until the peer has recovered, and once more: the
        # capture before the last run may have been too early for that.
        lines_before = len(host.said("watchdog"))
        alpha.starts_with({})
        with host.overridden(
            service("watchdog"), f"[Unit]\nWants={service('capture')}\nAfter={service('capture')}\n"
        ):
            machine.run(
                "systemctl", "start", "tailscale-watchdog.timer", "tailscale-keepalive.timer"
            )
            wait_for(lab, alpha, "bravo", RECOVERED)
            host.without_timers()
            machine.wait_until(service("watchdog"), "ActiveState", "inactive")
            host.start("watchdog")

        def replayed_with(limit: int) -> tuple[dict[str, Any], list[str]]:
            policy = (f"--max-relay-seconds={limit}", "--cooldown-seconds=600")
            ran = host.tsfc("replay", CAPTURE, *policy, "--format", "json")
            document = json.loads(ran.stdout)
            return document, without_complaints([entry["line"] for entry in document["lines"]])

        # Replay the capture, with the limit that makes it restart in the same run. In whole
        # seconds, the relay of the capture can be a second shorter, so with the watchdog's
        # limit the replay could restart a run later; the start that the capture shows would
        # then be that of another, and relay would start again.
        journal = without_complaints(host.said("watchdog")[lines_before:])
        restarted = next(run for run, line in enumerate(journal) if line.startswith("RESTART"))
        _, patient = replayed_with(MAX_RELAY_SECONDS + 600)
        (seconds,) = re.findall(r"on relay for (\d+)s", patient[restarted])
        replayed, replay = replayed_with(int(seconds) - 1)
        # The number of lines is equal, but for one repetition. The figures in them are
        # equal, but for the drift.
        for word in ("DETECTED", "WAITING", "RESTART", "COOLDOWN", "RECOVERED"):
            lines, replayed_lines = (
                [line for line in source if line.startswith(word)] for source in (journal, replay)
            )
            tolerance = word in {"WAITING", "COOLDOWN"}
            assert abs(len(lines) - len(replayed_lines)) <= tolerance, (journal, replay)
            for one, other in zip(lines, replayed_lines, strict=False):
                figures, others = (
                    [int(figure) for figure in re.findall(r"\d+", line)] for line in (one, other)
                )
                assert all(
                    abs(figure - same) <= DRIFT_SECONDS
                    for figure, same in zip(figures, others, strict=True)
                ), (one, other)
        assert replayed["restarts"] == 1
        assert starts(alpha) == 2
