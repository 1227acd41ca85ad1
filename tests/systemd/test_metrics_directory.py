"""The directory of the metrics, in the places where it is met."""

from __future__ import annotations

import pytest

from support.hosts import FILES, METRICS, Host

MADE = {
    "by tmpfiles, root's": "systemd-tmpfiles --create /etc/tmpfiles.d/tailscale-exporter.conf",
    "a static user's": f"useradd --system alloy 2>/dev/null; install -d -o alloy -m 0750 {METRICS}",
    "a dynamic user's": f"install -d -m 0700 /var/lib/private; install -d -o 61184 -m 0755 /var/lib/private/alloy; ln -s private/alloy {METRICS}",
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_each_job_writes_there(host: Host, made: str) -> None:
    """And again, over what it wrote, and over what a script of root's wrote; tmpfiles changes nothing about a directory that is there."""
    host.machine.run("sh", "-c", f"rm -rf {METRICS} /var/lib/private/alloy; {made}")
    before = owned(host)
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
            "/var/lib/private/alloy" if "private" in made else METRICS
        ).iterdir()
    ] != []
    host.machine.run("systemd-tmpfiles", "--create")
    assert owned(host) == before
    assert host.failed_units() == []


def test_where_there_is_none_the_run_fails_and_says_so(host: Host) -> None:
    """The unit still starts: what is wrong is said by the job, not by the name space."""
    host.machine.run("sh", "-c", f"rm -rf {METRICS} /var/lib/private/alloy")
    assert host.start("exporter", check=False).status == 1
    assert host.said("exporter")[-1] == (
        f"tsfc exporter: writing {METRICS}/tailscale-peers.prom: No such file or directory; create the directory {METRICS}, or set --metrics-path"
    )
    host.machine.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/tailscale-exporter.conf")
    host.start("exporter")
    assert host.failed_units() == []


def owned(host: Host) -> str:
    """Returns whose the directory is, its mode, and whether it is a link."""
    return host.machine.run("stat", "--format=%U %a %F", METRICS, f"{METRICS}/.").stdout
