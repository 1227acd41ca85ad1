"""`tsfc units --upgrade` and `--uninstall-own`, which packages run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.processes import Completed, error_lines, run
from tsfc.units.install import jobs_that_run

PROGRAM = f"{sys.prefix}/bin/tsfc"
UNITS = "etc/systemd/system"
OF_WORK = ("--instance=work", "--socket=/run/tailscale-work/tailscaled.sock")


@pytest.fixture
def root(box: Path) -> Path:
    """A file system with units of three kinds.

    The usual exporter and the keepalive of the instance `work` run this tsfc, the usual
    keepalive runs another one.
    """
    root = box / "root"
    root.mkdir()
    units(root, "--install", "exporter", "--exporter-interval=7min")
    units(root, "--install", "keepalive", "--package=/opt/other")
    units(root, "--install", "keepalive", *OF_WORK)
    return root


def units(root: Path, *arguments: str, status: int = 0) -> Completed:
    ran = run("units", "--root", str(root), *arguments)
    assert ran.status == status, ran
    return ran


def tree(root: Path) -> dict[str, str]:
    """Text of each file, and target of each link."""
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def age(root: Path, *names: str) -> None:
    """Change the text of units, as if an older version had written them."""
    for name in names:
        unit = root / UNITS / name
        unit.write_text(f"{unit.read_text()}# An old line.\n")


def test_the_jobs_of_a_program_are_found_by_instance(root: Path) -> None:
    assert jobs_that_run(PROGRAM, str(root)) == {None: ("exporter",), "work": ("keepalive",)}
    assert jobs_that_run("/opt/other/bin/tsfc", str(root)) == {None: ("keepalive",)}
    assert jobs_that_run("/usr/bin/tsfc", str(root)) == {}


def test_the_templates_of_the_watchdog_are_no_instances(box: Path) -> None:
    """A notifier can be any program, even this tsfc."""
    units(box, "--install", "watchdog", f"--watchdog-notify-exec={PROGRAM}")
    assert (box / UNITS / "tailscale-watchdog-notify@.service").exists()
    assert jobs_that_run(PROGRAM, str(box)) == {None: ("watchdog",)}


def test_the_jobs_of_an_agent_are_those_of_its_program(root: Path) -> None:
    units(root, "--install", "--agent", "exporter", "watchdog", "--package=/opt/other")
    assert jobs_that_run("/opt/other/bin/tsfc", str(root)) == {
        None: ("exporter", "keepalive", "watchdog")
    }
    assert jobs_that_run(PROGRAM, str(root)) == {"work": ("keepalive",)}


def test_an_upgrade_rewrites_the_units_of_this_tsfc(root: Path) -> None:
    """With their options, and no others."""
    before = tree(root)
    age(root, "tailscale-exporter.service", "tailscale-keepalive-work.timer")
    assert tree(root) != before
    ran = units(root, "--upgrade")
    assert tree(root) == before
    assert "kept --exporter-interval=7min for exporter" in ran.stdout
    assert "tailscale-keepalive.service" not in ran.stdout


def test_an_upgrade_does_not_enable_what_an_admin_disabled(root: Path) -> None:
    """The links of the other units stay."""
    link = root / UNITS / "timers.target.wants/tailscale-exporter.timer"
    link.unlink()
    before = tree(root)
    age(root, "tailscale-exporter.service")
    ran = units(root, "--upgrade")
    assert tree(root) == before
    assert "enabled" not in ran.stdout
    units(root, "--install", "exporter")
    assert link.is_symlink()


def test_an_upgrade_leaves_units_alone_whose_options_are_unknown(root: Path) -> None:
    """It upgrades the others, and fails."""
    service = root / UNITS / "tailscale-exporter.service"
    service.write_text(service.read_text().replace('"version":1', '"version":2'))
    age(root, "tailscale-keepalive-work.timer")
    damaged = service.read_text()
    ran = units(root, "--upgrade", status=1)
    assert len(error_lines("units", ran)) == 1
    assert service.read_text() == damaged
    assert "old line" not in (root / UNITS / "tailscale-keepalive-work.timer").read_text()


def test_only_the_units_of_this_tsfc_are_uninstalled(root: Path) -> None:
    units(root, "--uninstall-own")
    names = {path.name for path in (root / UNITS).rglob("tailscale-*")}
    assert names == {"tailscale-keepalive.service", "tailscale-keepalive.timer"}


def test_an_agent_is_uninstalled(root: Path) -> None:
    units(root, "--install", "--agent", "exporter", "keepalive", "--unset=package")
    units(root, "--uninstall-own")
    assert not list((root / UNITS).rglob("tailscale-*.*"))


@pytest.mark.parametrize("action", ["--upgrade", "--uninstall-own"])
def test_without_units_nothing_happens(action: str, box: Path) -> None:
    root = box / "empty"
    root.mkdir()
    assert units(root, action).stdout == ""
    assert tree(root) == {}


@pytest.mark.parametrize("action", ["--upgrade", "--uninstall-own"])
@pytest.mark.parametrize(
    "argument",
    ["exporter", "--instance=work", "--reset", "--unset=socket", "--exporter-interval=1min"],
)
def test_they_accept_no_other_arguments(action: str, argument: str, root: Path) -> None:
    before = tree(root)
    ran = units(root, action, argument, status=2)
    assert error_lines("units", ran) == [
        f"{action} accepts no job, and no option except --root; leave them out"
    ]
    assert tree(root) == before
