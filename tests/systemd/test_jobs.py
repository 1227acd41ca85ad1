"""The jobs as units of a real systemd."""

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
    TSFC,
    Host,
    hosting,
    require_bootable,
    service,
)
from support.processes import wait_until
from support.statuses import encoded, peer

EXPOSURE = {"exporter": 2.0, "native-metrics": 2.0, "keepalive": 2.0, "watchdog": 3.0}
"Maximum exposure according to `systemd-analyze security`."
RUNS = 5


def test_the_units_are_valid(host: Host) -> None:
    units = host.machine.run("sh", "-c", "ls /etc/systemd/system/tailscale-*").stdout.split()
    assert len(units) == 10
    assert host.machine.run("systemd-analyze", "verify", *units) == (0, "", "")


@pytest.mark.parametrize("job", JOBS)
def test_the_exposure_is_small(host: Host, job: str) -> None:
    analysis = host.machine.run("systemd-analyze", "security", "--no-pager", service(job)).stdout
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+) ", analysis)
    assert exposure
    assert float(exposure[1]) <= EXPOSURE[job]


@pytest.mark.parametrize(("job", "name"), FILES.items())
def test_all_users_may_read_the_metrics_of_a_job(host: Host, job: str, name: str) -> None:
    host.start(job)
    path = host.machine.path(f"{METRICS}/tailscale-{name}.prom")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert f"tailscale_{job.replace('-', '_')}_duration_seconds" in host.exported(name)


def test_keepalive_logs_nothing(host: Host) -> None:
    before = host.said("keepalive")
    host.start("keepalive")
    assert host.said("keepalive") == before


def test_the_journal_has_no_line_about_a_normal_run(host: Host) -> None:
    """With 13 runs per minute, lines about each start and end would fill it."""
    host.start("exporter")
    before = host.machine.journal("--unit=tailscale-exporter.service")
    host.start("exporter")
    assert host.machine.journal("--unit=tailscale-exporter.service") == before


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_only_ordered_after_tailscaled(host: Host, job: str) -> None:
    """A stronger dependency would stop the watchdog when it restarts tailscaled."""
    for name in ("Requires", "BindsTo", "Requisite", "PartOf", "Wants"):
        assert "tailscaled.service" not in host.machine.show(service(job), name)
    assert "tailscaled.service" in host.machine.show(service(job), "After")


def test_a_stopped_tailscaled_is_reported_as_down(host: Host) -> None:
    """No unit fails, and the metrics show no stale values."""
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


def test_a_run_gives_up_on_a_hung_tailscaled_after_the_timeout() -> None:
    """After SIGSTOP the socket accepts connections, but nothing reads from them."""
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


def test_systemd_ends_a_run_that_hangs(host: Host) -> None:
    """After `TimeoutStartSec`, which a drop-in shortens here. The next run succeeds."""
    with host.overridden(
        service("exporter"), "[Service]\nTimeoutStartSec=300ms\nExecStartPre=/bin/sleep infinity\n"
    ):
        assert host.start("exporter", check=False).status == 1
        assert host.machine.show(service("exporter"), "Result") == "timeout"
    host.start("exporter")
    assert host.failed_units() == []


@pytest.mark.parametrize("job", ["exporter", "watchdog"])
def test_a_full_disk_fails_the_run_and_keeps_the_old_metrics(host: Host, job: str) -> None:
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


def test_the_tailscale_cli_runs_in_the_sandbox() -> None:
    """It is used when the socket is unavailable; a script stands for it here."""
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
def test_a_tsfc_in_a_hidden_directory_works(place: str) -> None:
    """The sandbox shows its prefix to the jobs."""
    require_bootable()
    with hosting() as host:
        host.without_timers()
        host.machine.run(
            "sh",
            "-c",
            f"mkdir -p {place} && cp -a {PACKAGE} {place}/tsfc && "
            f"sed -i 's#{PACKAGE}#{place}/tsfc#' {place}/tsfc/bin/tsfc",
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


def test_units_are_not_installed_for_a_tsfc_that_only_its_owner_may_read(host: Host) -> None:
    """A umask of 077 causes this, and the units do not run as root."""
    host.machine.run(
        "sh",
        "-c",
        f"mkdir -p /opt/closed && cp -a {PACKAGE} /opt/closed/ && cd /opt/closed/tsfc && "
        f"sed -i s#{PACKAGE}#/opt/closed/tsfc# bin/tsfc",
    )
    for path in ("bin/tsfc", "."):
        host.machine.run("chmod", "go-rwx", f"/opt/closed/tsfc/{path}")
        ran = host.machine.run("/opt/closed/tsfc/bin/tsfc", "units", "--install", check=False)
        assert (ran.status, ran.stdout) == (1, "")
        assert re.fullmatch(
            r"tsfc units: using the tsfc in /opt/closed/tsfc: "
            r"only its owner may read /opt/closed/tsfc(/bin/tsfc)?, .*chmod -R a\+rX.*\n",
            ran.stderr,
        )


def test_without_privileges_an_error_of_systemctl_advises_root(host: Host) -> None:
    unprivileged = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    ran = host.machine.run(*unprivileged, TSFC, "units", "--uninstall", "exporter", check=False)
    (line,) = ran.stderr.splitlines()
    assert line.startswith("tsfc units: running `systemctl stop tailscale-exporter.service")
    assert line.endswith("; run as root")
    assert ran.status == 1


def test_an_error_of_systemctl_is_reported_in_one_line(host: Host) -> None:
    """Here a drop-in of the host requires a unit that does not exist."""
    with host.overridden("tailscale-exporter.timer", "[Unit]\nRequires=nonexistent.service\n"):
        ran = host.tsfc("units", "--install", "exporter", check=False)
        prefix = "tsfc units: running `systemctl restart tailscale-exporter.timer`: exit status "
        assert re.fullmatch(
            rf"{re.escape(prefix)}\d+: .*nonexistent.service not found.*; "
            r"run it by hand to see more\n",
            ran.stderr,
        )
        assert ran.status == 1


def test_uninstall_stops_and_removes_all_units() -> None:
    """Metrics and state stay; metrics are listed."""
    require_bootable()
    with hosting() as host:
        host.start("watchdog")
        output = host.tsfc("units", "--uninstall").stdout
        assert f"kept {METRICS}/tailscale-watchdog.prom; " in output
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
                "ls -d /etc/systemd/system/*/tailscale-* /etc/systemd/system/tailscale-* "
                "/etc/tmpfiles.d/* || true",
            ).stdout
            == ""
        )
        assert host.machine.path(f"{STATE}").is_symlink()


def test_timers_fire_at_their_intervals() -> None:
    """From start to start; a run longer than its interval delays the next one."""
    require_bootable()
    command = f'cut -d " " -f 1 /proc/uptime >> {METRICS}/starts.%p'
    note = f"[Service]\nExecStartPre=+/bin/sh -c '{command}'\n"
    intervals = {"native-metrics": 1.0, "exporter": 0.3}
    flags = [f"--{job}-interval={interval}s" for job, interval in intervals.items()]
    with hosting(
        *flags, files={f"{UNITS}/{service(job)}.d/note.conf": note for job in intervals}
    ) as host:

        def starts(job: str) -> list[float]:
            file = host.machine.path(f"{METRICS}/starts.tailscale-{job}")
            return [float(line) for line in file.read_text().split()] if file.exists() else []

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
