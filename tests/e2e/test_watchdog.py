"""The watchdog, with the project's own units, under a systemd in the node's network: what it does to a real tailscaled, and when."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from itertools import pairwise

import pytest

from lab import NAT, NEWEST, OLDEST, Lab
from lab.nodes import ALWAYS_DERP, NEVER_DIRECT
from support.booted import Machine
from support.hosts import METRICS, SOCKET, service
from support.tailnets import Booted, booted_node

MAX_RELAY_SECONDS = 14
"More than keepalive takes until a path is direct, which is ten seconds; `docs/tailscale.md` has what was measured."
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
    """Waits until this is what the watchdog has said last about a peer, and until the run that said it has written its metrics."""
    lab.wait_until(lambda: story(booted, peer)[-len(ending) :] == list(ending), DEADLINE)
    booted.host.machine.wait_until(service("watchdog"), "ActiveState", "inactive")


def story(booted: Booted, peer: str) -> list[str]:
    """Returns what the watchdog has said about a peer, without the figures, and each line that is repeated once."""
    said = [
        re.sub(r"\d+s", "Ns", line)
        for line in booted.host.said("watchdog")
        if re.match(rf"[A-Z]+: {peer} ", line)
    ]
    return [line for number, line in enumerate(said) if number == 0 or line != said[number - 1]]


def starts(booted: Booted) -> int:
    """Returns how often tailscaled was started."""
    return sum(
        "Program starting: v" in line
        for line in booted.host.machine.journal("--unit=tailscaled.service")
    )


def counted(booted: Booted, what: str) -> float:
    """Returns a counter of the watchdog's; 0 where it has not run yet."""
    if not booted.host.machine.path(f"{METRICS}/tailscale-watchdog.prom").exists():
        return 0
    return booted.host.exported("watchdog")[f"tailscale_watchdog_{what}_total"]


def connections(machine: Machine, job: str) -> int:
    """Returns how many connections to tailscaled a job's run has made that were not taken yet; they belong to the network of the job's sandbox."""
    pid = machine.show(service(job), "MainPID")
    sockets = (
        machine.run(
            "nsenter", f"--target={pid}", "--net", "cat", "/proc/net/unix", check=False
        ).stdout
        if pid != "0"
        else ""
    )
    return sockets.count(f" {SOCKET}\n")


UNANSWERED = re.compile(
    r"asking tailscaled for .*(the connection was closed without a response|Connection reset by peer)"
)
DETECTED = "DETECTED: bravo transitioned to relay"
WAITING = "WAITING: bravo on relay for Ns (threshold: Ns)"
RESTART = "RESTART: bravo on relay for Ns, restarting tailscaled"
COOLDOWN = "COOLDOWN: bravo exceeded threshold but in cooldown (Ns remaining)"
RECOVERED = "RECOVERED: bravo back to direct"


def test_a_node_that_is_stuck_on_relay_is_restarted_once_and_direct_after(release: str) -> None:
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
            counted(alpha, "restarts"),
            counted(alpha, "relay_detections"),
            counted(alpha, "recoveries"),
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


def test_a_peer_behind_a_hard_nat_has_tailscaled_restarted_again_and_again(release: str) -> None:
    cycle = (*INSTALL, "--watchdog-max-relay-seconds=6", "--watchdog-cooldown-seconds=12")
    with (
        Lab(version=release, bravo=NAT.HARD) as lab,
        booted_node(lab, "alpha", NAT.EASY, *cycle) as alpha,
    ):
        lab.wait_until(lambda: counted(alpha, "restarts") >= 3, DEADLINE)
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
        assert counted(alpha, "relay_detections") == 1
        assert counted(alpha, "recoveries") == 0
        restarts = counted(alpha, "restarts")
        assert starts(alpha) == 1 + restarts
        assert alpha.path_to("bravo") in {"derp", "idle"}
        ages = [
            int(age)
            for line in alpha.host.said("watchdog")
            for age in re.findall(r"^RESTART: bravo on relay for (\d+)s", line)
        ]
        assert all(later - earlier >= 12 for earlier, later in pairwise(ages)), ages


def test_a_peer_that_is_excluded_is_no_reason_to_restart(release: str) -> None:
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
        assert counted(alpha, "restarts") == 0


def test_udp_that_is_blocked_and_open_again_recovers_without_a_restart(release: str) -> None:
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
        assert counted(alpha, "recoveries") == recoveries
        assert counted(alpha, "restarts") == 0
        assert starts(alpha) == 1


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_a_tailscaled_that_goes_in_the_middle_of_each_run(release: str, how: str) -> None:
    """Each job has asked and waits for the answer when tailscaled goes and comes again: the run ends well, and the next one sees.

    One that is stopped in order may still answer; who gets none says so, and shows nothing.
    """
    with (
        Lab(version=release, bravo=NAT.NO_UDP) as lab,
        booted_node(lab, "alpha", NAT.EASY, *PATIENT) as alpha,
    ):
        host, machine = alpha.host.without_timers(), alpha.host.machine
        lab.wait_until(lambda: alpha.path_to("bravo"), 30)
        for job in JOBS:
            host.start(job)
        remembered, said = peers_remembered(alpha), {job: len(host.said(job)) for job in JOBS}
        assert remembered == ["peer_bravo"]
        machine.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", "tailscaled.service")
        machine.run("systemctl", "start", "--no-block", *(service(job) for job in JOBS))
        lab.wait_until(
            lambda: all(connections(machine, job) == 2 for job in JOBS), 30
        )  # the first only to see whether somebody listens
        machine.run(
            "systemctl",
            *(("restart",) if how == "restart" else ("kill", "--signal=KILL")),
            "tailscaled.service",
        )
        for job in JOBS:
            machine.wait_until(service(job), "ActiveState", "inactive")
            assert machine.show(service(job), "Result") == "success"
        unanswered = {
            job: [line for line in host.said(job)[said[job] :] if UNANSWERED.search(line)]
            for job in JOBS
        }
        assert how == "restart" or all(len(lines) == 1 for lines in unanswered.values()), unanswered
        assert (host.exported("peers")["tailscale_up"] == 0) == bool(unanswered["exporter"])
        assert (host.exported("native")["tailscale_native_metrics_up"] == 0) == bool(
            unanswered["native-metrics"]
        )
        assert peers_remembered(alpha) == remembered
        lab.wait_until(lambda: alpha.path_to("bravo"), 30)
        host.start("exporter")
        assert host.exported("peers")["tailscale_up"] == 1
        assert host.failed_units() == []


def peers_remembered(booted: Booted) -> list[str]:
    """Returns the names of the files that remember a peer on relay."""
    return sorted(
        path.name
        for path in booted.host.machine.path("/var/lib/private/tailscale-watchdog").glob("peer_*")
    )


def test_two_ends_that_both_run_a_watchdog_come_to_rest(release: str) -> None:
    with Lab(version=release) as lab, ExitStack() as stack:
        ends = {
            "bravo": stack.enter_context(
                booted_node(lab, "alpha", NAT.EASY, *HASTY, environment=STUCK[release])
            ),
            "alpha": stack.enter_context(booted_node(lab, "bravo", NAT.EASY, *HASTY)),
        }
        ends["bravo"].starts_with({})

        def are_at_rest() -> bool:
            return all(
                story(end, peer)[-1:] == [f"RECOVERED: {peer} back to direct"]
                and end.path_to(peer) == "direct"
                for peer, end in ends.items()
            )

        lab.wait_until(lambda: counted(ends["bravo"], "restarts") == 1, DEADLINE)
        lab.wait_until(are_at_rest, DEADLINE)
        assert all(counted(end, "restarts") <= 1 for end in ends.values())
        assert all(starts(end) == 1 + counted(end, "restarts") for end in ends.values())


CAPTURE = "/var/lib/tailscale-capture/status.ndjson.zst"
DRIFT_SECONDS = 2 * 2
"Two runs: a path that changes between the two looks is seen by one of them a run earlier, and the age that is said is in whole seconds."


def test_what_was_captured_beside_the_watchdog_replays_to_the_journal(release: str) -> None:
    """Before each run of it there is one of `tailscale-capture.service`: the two see tailscaled a tenth of a second apart."""
    with (
        Lab(version=release, bravo=NAT.EASY) as lab,
        booted_node(
            lab, "alpha", NAT.EASY, *JOBS, "capture", *HASTY, environment=STUCK[release]
        ) as alpha,
    ):
        host, machine = alpha.host.without_timers(), alpha.host.machine
        machine.run("systemctl", "stop", "tailscale-capture.timer")
        lab.wait_until(lambda: alpha.pinged("bravo") == "derp", 30)
        for job in ("watchdog", "capture"):
            machine.wait_until(service(job), "ActiveState", "inactive")
        machine.run(
            "sh",
            "-c",
            f"rm -f {CAPTURE} /var/lib/private/tailscale-watchdog/* /var/lib/private/tailscale-watchdog/.[a-z]*",
        )
        said = len(host.said("watchdog"))
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
            host.start(
                "watchdog"
            )  # once more: the capture beside the last one may have been too early to see it
        policy = (f"--max-relay-seconds={MAX_RELAY_SECONDS}", "--cooldown-seconds=600")
        replayed = json.loads(host.tsfc("replay", CAPTURE, *policy, "--format", "json").stdout)
        in_journal = [
            line for line in host.said("watchdog")[said:] if not line.startswith("tsfc watchdog: ")
        ]
        in_replay = [
            entry["line"]
            for entry in replayed["lines"]
            if not entry["line"].startswith("tsfc watchdog: ")
        ]
        for word in ("DETECTED", "WAITING", "RESTART", "COOLDOWN", "RECOVERED"):
            told, again = (
                [line for line in lines if line.startswith(word)]
                for lines in (in_journal, in_replay)
            )
            assert abs(len(told) - len(again)) <= (word in {"WAITING", "COOLDOWN"}), (
                in_journal,
                in_replay,
            )
            for one, other in zip(told, again, strict=False):
                figures, others = (
                    [int(figure) for figure in re.findall(r"\d+", line)] for line in (one, other)
                )
                assert all(
                    abs(figure - same) <= DRIFT_SECONDS
                    for figure, same in zip(figures, others, strict=True)
                ), (one, other)
        assert replayed["restarts"] == 1
        assert starts(alpha) == 2
