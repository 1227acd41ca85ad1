"""The job `capture` as a unit of a real systemd."""

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
AS_USER = ("setpriv", "--reuid=61000", "--regid=61000", "--clear-groups")


@pytest.fixture(scope="module")
def host() -> Generator[Host]:
    """A host with only `capture` installed, and its timer stopped."""
    require_bootable()
    with hosting("capture") as host:
        host.machine.run("systemctl", "stop", "tailscale-capture.timer")
        yield host


def _count(host: Host, path: str = CAPTURE) -> tuple[int, int]:
    """Return the number of observations in a capture, and of faults among them."""
    if not host.machine.path(path).exists():
        return 0, 0
    summary = json.loads(host.tsfc("replay", path, "--format", "json").stdout)
    return summary["observations"], summary["faults"]


def test_each_run_appends_an_observation_that_only_root_may_read(host: Host) -> None:
    before, _ = _count(host)
    host.start("capture")
    host.start("capture")
    assert _count(host) == (before + 2, 0)
    assert stat.S_IMODE(host.machine.path(CAPTURE).stat().st_mode) == 0o600
    assert host.machine.run(*AS_USER, "cat", CAPTURE, check=False).stderr.endswith(
        "Permission denied\n"
    )
    assert host.said("capture") == []


def test_a_capture_that_another_user_id_began_is_continued(host: Host) -> None:
    """A dynamic user may have another ID after a reboot."""
    host.start("capture")
    before, _ = _count(host)
    host.machine.run("chown", "--recursive", "61999:61999", f"{DIRECTORY}/")
    host.start("capture")
    assert _count(host) == (before + 1, 0)


def test_a_capture_in_a_directory_of_root_is_continued(host: Host) -> None:
    """Units of earlier versions had the capability to write there."""
    host.start("capture")
    before, _ = _count(host)
    host.machine.run(
        "sh",
        "-c",
        f"rm {DIRECTORY} && mv /var/lib/private/tailscale-capture {DIRECTORY} && "
        f"chown --recursive root:root {DIRECTORY} && chmod 0700 {DIRECTORY}",
    )
    host.start("capture")
    assert _count(host) == (before + 1, 0)
    assert host.machine.path(DIRECTORY).is_symlink()


def test_the_job_has_no_capability(host: Host) -> None:
    assert host.machine.show(service("capture"), "CapabilityBoundingSet") == ""
    assert host.machine.show(service("capture"), "AmbientCapabilities") == ""


def test_a_stopped_tailscaled_is_captured_as_a_fault(host: Host) -> None:
    before, faults = _count(host)
    host.machine.run("systemctl", "stop", "tailscaled.service")
    try:
        host.start("capture")
    finally:
        host.machine.run("systemctl", "start", "tailscaled.service")
    assert host.failed_units() == []
    assert _count(host) == (before + 1, faults + 1)
    assert "is tailscaled running?" in host.said("capture")[-1]


def test_the_units_are_valid_and_the_exposure_is_small(host: Host) -> None:
    units = host.machine.run(
        "sh", "-c", "ls /etc/systemd/system/tailscale-capture.*"
    ).stdout.split()
    assert host.machine.run("systemd-analyze", "verify", *units) == (0, "", "")
    analysis = host.machine.run(
        "systemd-analyze", "security", "--no-pager", service("capture")
    ).stdout
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+) ", analysis)
    assert exposure
    assert float(exposure[1]) <= EXPOSURE


def test_a_redacted_capture_keeps_its_key_from_run_to_run() -> None:
    """The mode of an existing directory stays as it is."""
    require_bootable()
    files = {"/srv/captures/README": "captures of our fleet"}
    with hosting(
        "capture",
        "--capture-redact",
        "--capture-output=/srv/captures/c.ndjson",
        "--capture-interval=0.3s",
        files=files,
    ) as host:
        mode = host.machine.path("/srv/captures").stat().st_mode
        wait_until(lambda: _count(host, "/srv/captures/c.ndjson")[0] > 2, "the timer has fired")
        text = host.machine.path("/srv/captures/c.ndjson").read_text()
        assert "bravo" not in text
        # The pseudonyms are the same in each observation.
        assert len(set(re.findall(r'"DNSName":"([^"]*)"', text))) == 3
        assert host.machine.path("/srv/captures/c.ndjson.key").exists()
        assert host.machine.path("/srv/captures").stat().st_mode == mode
        host.machine.run("systemctl", "stop", "tailscale-capture.timer")
