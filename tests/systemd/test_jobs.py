"""The jobs as units, under a real systemd."""

from __future__ import annotations

import re
import stat

import pytest

from support.booted import UNITS
from support.hosts import (
    FILES,
    JOBS,
    METRICS,
    PACKAGE,
    SOCKET,
    STATE,
    Host,
    hosting,
    require_bootable,
    service,
)
from support.processes import wait_until
from support.statuses import encoded, peer

EXPOSURE = {"exporter": 2.0, "native-metrics": 2.0, "keepalive": 2.0, "watchdog": 3.0}
"What `systemd-analyze security` may say at most."
RUNS = 5


def test_verify_has_nothing_to_say(host: Host) -> None:
    units = host.machine.run("sh", "-c", "ls /etc/systemd/system/tailscale-*").stdout.split()
    assert len(units) == 10
    assert host.machine.run("systemd-analyze", "verify", *units) == (0, "", "")


@pytest.mark.parametrize("job", JOBS)
def test_the_exposure_is_small(host: Host, job: str) -> None:
    said = host.machine.run("systemd-analyze", "security", "--no-pager", service(job)).stdout
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+) ", said)
    assert exposure
    assert float(exposure[1]) <= EXPOSURE[job]


@pytest.mark.parametrize(("job", "name"), FILES.items())
def test_a_job_writes_its_file_for_all_to_read(host: Host, job: str, name: str) -> None:
    host.start(job)
    path = host.machine.path(f"{METRICS}/tailscale-{name}.prom")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert f"tailscale_{job.replace('-', '_')}_duration_seconds" in host.exported(name)


def test_a_keepalive_pings_and_says_nothing(host: Host) -> None:
    before = host.said("keepalive")
    host.start("keepalive")
    assert host.said("keepalive") == before


def test_a_run_that_has_nothing_to_say_adds_no_line_to_the_journal(host: Host) -> None:
    """There are 13 a minute: that each starts and ends is not worth two lines."""
    host.start("exporter")
    before = host.machine.journal("--unit=tailscale-exporter.service")
    host.start("exporter")
    assert host.machine.journal("--unit=tailscale-exporter.service") == before


@pytest.mark.parametrize("job", JOBS)
def test_a_job_lives_and_dies_without_tailscaled(host: Host, job: str) -> None:
    """The watchdog restarts tailscaled: a unit that is bound to it would be stopped by its own restart."""
    for name in ("Requires", "BindsTo", "Requisite", "PartOf", "Wants"):
        assert "tailscaled.service" not in host.machine.show(service(job), name)
    assert "tailscaled.service" in host.machine.show(service(job), "After")


def test_a_tailscaled_that_is_stopped_is_a_finding(host: Host) -> None:
    """No unit fails, and no old number looks new."""
    host.start("exporter")
    assert host.exported("peers")["tailscale_up"] == 1
    host.machine.run("systemctl", "stop", "tailscaled.service")
    assert not host.machine.path(SOCKET).exists()
    try:
        for job in JOBS:
            host.start(job)
        assert host.failed_units() == []
        assert host.exported("peers")["tailscale_up"] == 0
        assert host.exported("native")["tailscale_native_metrics_up"] == 0
        assert "No such file or directory; is tailscaled running?" in host.said("exporter")[-1]
    finally:
        host.machine.run("systemctl", "start", "tailscaled.service")
    host.start("exporter")
    assert host.exported("peers")["tailscale_up"] == 1


def test_a_hung_tailscaled_ends_at_the_timeout_and_the_next_run_works() -> None:
    """SIGSTOP is as hung as can be: the socket takes connections, and nobody ever reads."""
    require_bootable()
    with hosting("--exporter-extra-args=--timeout=0.5") as host:
        host.without_timers()
        host.machine.run(
            "systemctl", "kill", "--kill-who=all", "--signal=STOP", "tailscaled.service"
        )
        host.start("exporter")
        assert host.exported("peers")["tailscale_up"] == 0
        assert "no complete response within 0.5 s" in host.said("exporter")[-1]
        host.machine.run(
            "systemctl", "kill", "--kill-who=all", "--signal=CONT", "tailscaled.service"
        )
        host.start("exporter")
        assert host.exported("peers")["tailscale_up"] == 1


def test_a_run_that_hangs_is_ended_by_systemd_and_the_next_one_works(host: Host) -> None:
    """`TimeoutStartSec` holds whatever the program does; shortened here by a drop-in."""
    with host.overridden(
        service("exporter"), "[Service]\nTimeoutStartSec=300ms\nExecStartPre=/bin/sleep infinity\n"
    ):
        assert host.start("exporter", check=False).status == 1
        assert host.machine.show(service("exporter"), "Result") == "timeout"
    host.start("exporter")
    assert host.failed_units() == []


@pytest.mark.parametrize("job", ["exporter", "watchdog"])
def test_a_full_disk_leaves_the_old_file_whole_and_the_run_failed(host: Host, job: str) -> None:
    path = f"{METRICS}/tailscale-{FILES[job]}.prom"
    host.machine.run("mount", "-t", "tmpfs", "-o", "size=16k,mode=755", "tmpfs", METRICS)
    try:
        host.start(job)
        old = host.machine.path(path).read_bytes()
        host.machine.run("sh", "-c", f"cat /dev/zero > {METRICS}/full 2>/dev/null; true")
        assert host.start(job, check=False).status == 1
        assert host.machine.path(path).read_bytes() == old
        assert "No space left on device" in host.said(job)[-1]
        assert host.failed_units() == [service(job)]
        host.machine.path(f"{METRICS}/full").unlink()
        host.start(job)
        assert host.failed_units() == []
        written = {entry.name for entry in host.machine.path(METRICS).iterdir()}
        snapshot = {"tailscale-watchdog.json"} if job == "watchdog" else set[str]()
        assert written == {f"tailscale-{FILES[job]}.prom"} | snapshot
    finally:
        host.machine.run("umount", METRICS)


def test_a_program_that_is_asked_runs_in_the_sandbox() -> None:
    """Where nobody listens on the socket, `tailscale` is run; a script stands for it here."""
    require_bootable()
    script = f"#!/bin/sh\necho '{encoded(peer('bravo')).decode()}'\n"
    with hosting(
        "--tailscale-package=/opt/tailscale", files={"/opt/tailscale/bin/tailscale": script}
    ) as host:
        host.without_timers()
        host.machine.run("systemctl", "stop", "tailscaled.service")
        host.start("exporter")
        assert host.exported("peers")['tailscale_peer_direct{peer="bravo"}'] == 1


@pytest.mark.parametrize("place", ["/root/.local/share/pipx/venvs", "/home/me", "/var/lib", "/tmp"])  # noqa: S108
def test_a_tsfc_that_lies_where_the_sandbox_hides_all_runs_all_the_same(place: str) -> None:
    """It is shown to the jobs, and nothing beside it is."""
    require_bootable()
    with hosting() as host:
        host.without_timers()
        host.machine.run(
            "sh",
            "-c",
            f"mkdir -p {place} && cp -a {PACKAGE} {place}/tsfc && sed -i 's#{PACKAGE}#{place}/tsfc#' {place}/tsfc/bin/tsfc",
        )
        host.machine.run(f"{place}/tsfc/bin/tsfc", "units", "--install")
        host.without_timers()
        for job in JOBS:
            host.start(job)
        assert host.exported("peers")["tailscale_up"] == 1
        assert (
            f'ExecStart="{place}/tsfc/bin/tsfc"'
            in host.machine.run("systemctl", "cat", service("exporter")).stdout
        )


def test_a_tsfc_that_only_its_owner_may_read_is_not_installed(host: Host) -> None:
    """A root's umask of 077 makes such ones, and the units are not root."""
    host.machine.run(
        "sh",
        "-c",
        f"mkdir -p /opt/closed && cp -a {PACKAGE} /opt/closed/ && cd /opt/closed/tsfc && sed -i s#{PACKAGE}#/opt/closed/tsfc# bin/tsfc",
    )
    for closed in ("bin/tsfc", "."):
        host.machine.run("chmod", "go-rwx", f"/opt/closed/tsfc/{closed}")
        ran = host.machine.run("/opt/closed/tsfc/bin/tsfc", "units", "--install", check=False)
        assert (ran.status, ran.stdout) == (1, "")
        assert re.fullmatch(
            r"tsfc units: using the tsfc in /opt/closed/tsfc: only its owner may read /opt/closed/tsfc(/bin/tsfc)?, .*chmod -R a\+rX.*\n",
            ran.stderr,
        )


def test_an_installation_that_systemd_refuses_is_one_line(host: Host) -> None:
    """Here a drop-in of the host's own wants what there is not."""
    with host.overridden("tailscale-exporter.timer", "[Unit]\nRequires=nonexistent.service\n"):
        ran = host.tsfc("units", "--install", "exporter", check=False)
        tried = "tsfc units: running `systemctl restart tailscale-exporter.timer`: exit status "
        assert re.fullmatch(
            rf"{re.escape(tried)}\d+: .*nonexistent.service not found.*; run it by hand to see more\n",
            ran.stderr,
        )
        assert ran.status == 1


def test_what_was_installed_can_be_uninstalled() -> None:
    """Nothing runs any more and no unit is left; what the jobs wrote stays, and is named."""
    require_bootable()
    with hosting() as host:
        host.start("watchdog")
        said = host.tsfc("units", "--uninstall").stdout
        assert f"kept {METRICS}/tailscale-watchdog.prom; " in said
        assert (
            host.machine.run(
                "systemctl",
                "list-units",
                "--all",
                "--plain",
                "--no-legend",
                "tailscale-*.timer",
                "tailscale-*.socket",
            ).stdout
            == ""
        )
        assert (
            host.machine.run(
                "sh",
                "-c",
                "ls -d /etc/systemd/system/*/tailscale-* /etc/systemd/system/tailscale-* /etc/tmpfiles.d/* || true",
            ).stdout
            == ""
        )
        assert host.machine.path(f"{STATE}").is_symlink()


def test_timers_fire_at_their_intervals() -> None:
    """From start to start; a run that takes longer than its interval delays the next, and none piles up."""
    require_bootable()
    note = f"[Service]\nExecStartPre=+/bin/sh -c 'cut -d \" \" -f 1 /proc/uptime >> {METRICS}/starts.%p'\n"
    intervals = {"native-metrics": 1.0, "exporter": 0.3}
    flags = [f"--{job}-interval={interval}s" for job, interval in intervals.items()]
    with hosting(
        *flags, files={f"{UNITS}/{service(job)}.d/note.conf": note for job in intervals}
    ) as host:

        def starts(job: str) -> list[float]:
            noted = host.machine.path(f"{METRICS}/starts.tailscale-{job}")
            return [float(line) for line in noted.read_text().split()] if noted.exists() else []

        wait_until(
            lambda: all(len(starts(job)) > RUNS for job in intervals), "the timers have fired"
        )
        for job, interval in intervals.items():
            first, *_, last = at = starts(job)
            assert interval - 0.02 <= (last - first) / (len(at) - 1) < interval + 0.5, (job, at)
        timer = host.machine.run(
            "systemctl",
            "show",
            "--property=AccuracyUSec,TimersMonotonic",
            "tailscale-watchdog.timer",
        ).stdout
        assert "AccuracyUSec=100ms\n" in timer
        assert "OnBootUSec=1min " in timer
        assert "OnUnitActiveUSec=1min " in timer
