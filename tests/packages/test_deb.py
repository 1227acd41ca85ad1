"""The Debian package: installed, upgraded, removed and purged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from packages.debian import UNPRIVILEGED, Debian, newer
from support.booted import UNITS, Machine, booted
from support.hosts import CAPTURE, STATUS_LINE, TAILSCALED, TAILSCALED_UNIT, TSFC, require_bootable

pytestmark = pytest.mark.slow

PROGRAM = "/usr/lib/tsfc/bin/tsfc"
SERVICE = f"{UNITS}/tailscale-exporter.service"
TIMERS = ("tailscale-exporter.timer", "tailscale-keepalive.timer", "tailscale-watchdog.timer")
STATE = "/var/lib/tailscale-watchdog"


def test_it_works_in_a_new_debian_from_its_installation_to_its_purge(
    debian: Debian, deb: Path
) -> None:
    """Nothing of it stays, and nothing needs a running systemd."""
    package, upgrade = debian.copy(deb), debian.copy(newer(deb, "99"))
    before = debian.own_files()
    ran = debian.run("dpkg", "--install", package)
    assert "run `tsfc units --install`" in ran.stdout
    assert not list(debian.path(UNITS).rglob("tailscale-*"))
    assert debian.run("tsfc", "--version").stdout.startswith("tsfc ")
    assert debian.run(*UNPRIVILEGED, "tsfc", "simulate", "--help").status == 0
    assert debian.run("dpkg", "--verify", "tsfc").stdout == ""

    debian.path("/srv/image-tsfc").mkdir()
    debian.run("tsfc", "units", "--install", "--root", "/srv/image-tsfc")
    shutil.rmtree(debian.path("/srv/image-tsfc"))
    debian.run("tsfc", "units", "--install", "--exporter-interval=7min", "--watchdog-dry-run")
    debian.run("tsfc", "units", "--install", "capture", "--instance=work", "--capture-redact",
               "--socket=/run/tailscale-work/tailscaled.sock")  # fmt: skip
    installed = debian.path(SERVICE).read_text()
    assert f'ExecStart="{PROGRAM}" "exporter"' in installed
    debian.path(SERVICE).write_text(f"{installed}# An old line.\n")

    ran = debian.run("dpkg", "--install", upgrade)
    assert debian.path(SERVICE).read_text() == installed
    assert "kept --watchdog-dry-run for watchdog" in ran.stdout
    assert "kept --capture-redact for capture" in ran.stdout

    debian.path(f"{STATE}-work").mkdir()
    metrics = debian.path("/var/lib/alloy/tailscale-peers.prom")
    metrics.parent.mkdir(exist_ok=True)
    metrics.touch()
    debian.run("dpkg", "--remove", "tsfc")
    assert not list(debian.path(UNITS).rglob("tailscale-*"))
    assert metrics.exists()
    debian.run("dpkg", "--purge", "tsfc")
    assert debian.own_files() == before


def test_a_purge_keeps_the_state_of_another_tsfc(debian: Debian, deb: Path) -> None:
    """And a removal keeps its units. The scripts run their own tsfc, not that one."""
    debian.run("dpkg", "--install", debian.copy(deb))
    debian.run("tsfc", "units", "--install", "keepalive")
    debian.run("tsfc", "units", "--install", "watchdog", "--package=/opt/tsfc")
    debian.path(STATE).mkdir()
    other = debian.path("/usr/local/bin/tsfc")
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    ran = debian.run("dpkg", "--purge", "tsfc")
    assert f"kept state and metrics: {UNITS}/tailscale-watchdog" in ran.stdout
    assert debian.path(STATE).exists()
    assert not debian.path(f"{UNITS}/tailscale-keepalive.timer").exists()
    assert debian.path(f"{UNITS}/tailscale-watchdog.timer").exists()


@pytest.fixture(scope="module")
def machine(deb: Path) -> Iterator[Machine]:
    """A booted machine with the Debian package and a tailscaled."""
    require_bootable()
    files = {TAILSCALED_UNIT: TAILSCALED.replace(TSFC, PROGRAM), CAPTURE: STATUS_LINE}
    with booted(files=files, visible=(deb.parent,)) as machine:
        machine.run("dpkg", "--install", str(deb))
        machine.run("systemctl", "start", "tailscaled.service")
        yield machine


def states(machine: Machine, *units: str) -> set[str]:
    return {machine.show(unit, "ActiveState") for unit in units}


def test_systemd_runs_only_what_the_admin_started(machine: Machine, deb: Path) -> None:
    """After the installation, an upgrade and the removal."""
    assert states(machine, *TIMERS) == {"inactive"}
    machine.run("tsfc", "units", "--install")
    assert states(machine, *TIMERS) == {"active"}
    machine.run("systemctl", "start", "tailscale-exporter.service")
    assert machine.path("/var/lib/alloy/tailscale-peers.prom").exists()

    stopped, disabled = "tailscale-watchdog.timer", "tailscale-keepalive.timer"
    machine.run("systemctl", "stop", stopped)
    machine.run("systemctl", "disable", "--now", disabled)
    machine.run("dpkg", "--install", str(newer(deb, "99")))
    assert states(machine, "tailscale-exporter.timer") == {"active"}
    assert states(machine, stopped, disabled) == {"inactive"}
    enabled = machine.run("systemctl", "is-enabled", stopped, disabled, check=False).stdout
    assert enabled.split() == ["enabled", "disabled"]
    machine.run("systemctl", "start", "tailscale-exporter.service")

    machine.run("dpkg", "--remove", "tsfc")
    left = machine.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "tailscale-*")
    assert left.stdout == ""
    assert machine.show("tailscaled.service", "ActiveState") == "active"
