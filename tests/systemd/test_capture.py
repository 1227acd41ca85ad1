"""The job that captures, as a unit under a real systemd."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Generator

import pytest

from support.hosts import Host, hosting, require_bootable, service
from support.processes import wait_until

DIRECTORY = "/var/lib/tailscale-capture"
CAPTURE = f"{DIRECTORY}/status.ndjson.zst"
EXPOSURE = 2.0


@pytest.fixture(scope="module")
def host() -> Generator[Host]:
    """A host on which only a capture is made, when a test says so."""
    require_bootable()
    with hosting("capture") as host:
        host.machine.run("systemctl", "stop", "tailscale-capture.timer")
        yield host


def _counted(host: Host, path: str = CAPTURE) -> tuple[int, int]:
    """Returns how many observations there are in a capture, and how many of them are faults."""
    if not host.machine.path(path).exists():
        return 0, 0
    counted = json.loads(host.tsfc("replay", path, "--format", "json").stdout)
    return counted["observations"], counted["faults"]


def test_each_run_appends_an_observation_that_only_root_may_read(host: Host) -> None:
    before, _ = _counted(host)
    host.start("capture")
    host.start("capture")
    assert _counted(host) == (before + 2, 0)
    assert stat.S_IMODE(host.machine.path(CAPTURE).stat().st_mode) == 0o600
    assert stat.S_IMODE(host.machine.path(DIRECTORY).stat().st_mode) == 0o700
    assert host.machine.path(DIRECTORY).stat().st_uid == 0
    assert host.said("capture") == []


def test_it_goes_on_where_another_user_id_began(host: Host) -> None:
    """That of a dynamic user may be another after a boot."""
    host.start("capture")
    before, _ = _counted(host)
    host.machine.run("chown", "61999:61999", CAPTURE)
    host.start("capture")
    assert _counted(host) == (before + 1, 0)


def test_a_tailscaled_that_is_down_is_a_fault_in_it(host: Host) -> None:
    before, faults = _counted(host)
    host.machine.run("systemctl", "stop", "tailscaled.service")
    try:
        host.start("capture")
    finally:
        host.machine.run("systemctl", "start", "tailscaled.service")
    assert host.failed_units() == []
    assert _counted(host) == (before + 1, faults + 1)
    assert "is tailscaled running?" in host.said("capture")[-1]


def test_verify_has_nothing_to_say_and_the_exposure_is_small(host: Host) -> None:
    units = host.machine.run(
        "sh", "-c", "ls /etc/systemd/system/tailscale-capture.*"
    ).stdout.split()
    assert host.machine.run("systemd-analyze", "verify", *units) == (0, "", "")
    said = host.machine.run("systemd-analyze", "security", "--no-pager", service("capture")).stdout
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+) ", said)
    assert exposure
    assert float(exposure[1]) <= EXPOSURE


def test_with_redact_the_key_is_beside_it_and_the_timer_goes_on() -> None:
    """Into a directory that was there, whose mode stays what it was."""
    require_bootable()
    files = {"/srv/captures/README": "those of our fleet"}
    with hosting(
        "capture",
        "--capture-redact",
        "--capture-output=/srv/captures/c.ndjson",
        "--capture-interval=0.3s",
        files=files,
    ) as host:
        mode = host.machine.path("/srv/captures").stat().st_mode
        wait_until(lambda: _counted(host, "/srv/captures/c.ndjson")[0] > 2, "the timer has fired")
        text = host.machine.path("/srv/captures/c.ndjson").read_text()
        assert "bravo" not in text
        assert (
            len(set(re.findall(r'"DNSName":"([^"]*)"', text))) == 3
        )  # the same in each observation: the key was kept
        assert host.machine.path("/srv/captures/c.ndjson.key").exists()
        assert host.machine.path("/srv/captures").stat().st_mode == mode
        host.machine.run("systemctl", "stop", "tailscale-capture.timer")
