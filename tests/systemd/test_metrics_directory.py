"""The jobs write to the metrics directory, whoever owns it."""

from __future__ import annotations

import pytest

from support.hosts import FILES, JOBS, METRICS, Host, hosting, require_bootable, service

OWNERS = [
    pytest.param(
        "systemd-tmpfiles --create /etc/tmpfiles.d/tailscale-exporter.conf", id="root, by tmpfiles"
    ),
    pytest.param(
        f"useradd --system alloy 2>/dev/null; install -d -o alloy -m 0750 {METRICS}",
        id="static user",
    ),
    pytest.param(
        "install -d -m 0700 /var/lib/private; "
        "install -d -o 61184 -m 0755 /var/lib/private/alloy; "
        f"ln -s private/alloy {METRICS}",
        id="dynamic user",
    ),
]
"Scripts that create the metrics directory."


@pytest.mark.parametrize("script", OWNERS)
def test_each_job_writes_to_the_metrics_directory(host: Host, script: str) -> None:
    """It also replaces its own file and one of root; tmpfiles keeps the directory."""
    host.machine.run("sh", "-c", f"rm -rf {METRICS} /var/lib/private/alloy; {script}")
    before = ownership(host)
    host.machine.run(
        "sh",
        "-c",
        f"echo old > {METRICS}/tailscale-peers.prom; chmod 0600 {METRICS}/tailscale-peers.prom",
    )
    for _ in range(2):
        for job, name in FILES.items():
            host.start(job)
            assert (
                host.machine.run("stat", "--format=%a", f"{METRICS}/tailscale-{name}.prom").stdout
                == "644\n"
            )
    assert host.exported("peers")["tailscale_up"] == 1
    assert [
        entry.name
        for entry in host.machine.path(
            "/var/lib/private/alloy" if "private" in script else METRICS
        ).iterdir()
    ] != []
    host.machine.run("systemd-tmpfiles", "--create")
    assert ownership(host) == before
    assert host.failed_units() == []


def test_a_missing_metrics_directory_fails_the_run_with_a_message(host: Host) -> None:
    """The unit still starts, so the job reports the error instead of systemd."""
    host.machine.run("sh", "-c", f"rm -rf {METRICS} /var/lib/private/alloy")
    assert host.start("exporter", check=False).status == 1
    assert host.said("exporter")[-1] == (
        f"tsfc exporter: writing {METRICS}/tailscale-peers.prom: No such file or directory; "
        f"create the directory {METRICS}, or set --metrics-path"
    )
    host.machine.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/tailscale-exporter.conf")
    host.start("exporter")
    assert host.failed_units() == []


def test_a_metrics_directory_that_a_user_could_redirect_is_refused(host: Host) -> None:
    """A link of the user would lead systemd, and then the job, to another directory."""
    host.machine.run("sh", "-c", "install -d -o 61000 /srv/app && install -d /srv/app/metrics")
    before = host.machine.run("systemctl", "cat", "tailscale-exporter.service").stdout
    path = "/srv/app/metrics/a.prom"
    ran = host.tsfc(
        "units", "--install", "exporter", f"--exporter-metrics-path={path}", check=False
    )
    assert (ran.status, ran.stdout) == (1, "")
    assert ran.stderr == (
        "tsfc units: installing tailscale-exporter.service: users other than root may change "
        f"/srv/app, so they could redirect {path} to any directory; "
        "choose a path below directories that only root may change. Nothing was changed\n"
    )
    assert host.machine.run("systemctl", "cat", "tailscale-exporter.service").stdout == before


def test_jobs_write_to_the_own_directory_without_a_capability() -> None:
    """They are members of its group; only the watchdog has the capability, for its helper."""
    require_bootable()
    options = [f"--{job}-metrics-path=/var/lib/tsfc/{job}.prom" for job in JOBS]
    with hosting(*options) as host:
        host.without_timers()
        for job in JOBS:
            host.start(job)
            # Another user ID began the file.
            path = f"/var/lib/tsfc/{job}.prom"
            host.machine.run("sh", "-c", f"echo old > {path}; chmod 0600 {path}")
            host.start(job)
            assert "duration_seconds" in host.machine.path(path).read_text()
            assert host.machine.run("stat", "--format=%a", path).stdout == "644\n"
            capabilities = host.machine.show(service(job), "CapabilityBoundingSet")
            assert capabilities == ("cap_dac_override" if job == "watchdog" else "")
        assert host.machine.run("stat", "--format=%U %G %a", "/var/lib/tsfc").stdout == (
            "root tsfc 775\n"
        )
        assert host.failed_units() == []
        host.tsfc("units", "--uninstall")


def ownership(host: Host) -> str:
    """Return the owner, mode and type of the directory and of its link."""
    return host.machine.run("stat", "--format=%U %a %F", METRICS, f"{METRICS}/.").stdout
