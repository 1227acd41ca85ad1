"""The zipapp, in a Debian without pip and under systemd."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packages.debian import PYTHON, UNPRIVILEGED, Debian
from support.booted import UNITS, booted
from support.hosts import (
    CAPTURE,
    STATUS_LINE,
    TAILSCALED,
    TAILSCALED_UNIT,
    TSFC,
    require_bootable,
)

pytestmark = pytest.mark.slow

COPIES = "/usr/local/lib/tsfc"
AS_NOBODY = (*UNPRIVILEGED, "env", "XDG_CACHE_HOME=/tmp/tsfc-cache")


def test_it_works_in_a_new_debian(debian: Debian, pyz: Path) -> None:
    """For root, and for a user."""
    program = debian.copy(pyz)
    assert debian.run(program, "--version").stdout.startswith("tsfc ")
    assert debian.run(*AS_NOBODY, program, "--version").stdout.startswith("tsfc ")
    (copy,) = debian.path(COPIES).iterdir()
    (of_nobody,) = debian.path("/tmp/tsfc-cache/tsfc").iterdir()  # noqa: S108 - of the new Debian
    assert copy.name == of_nobody.name
    assert copy.stat().st_mode & 0o777 == 0o755


def test_it_unpacks_once_and_imports_nothing_for_that_later(debian: Debian, pyz: Path) -> None:
    """So it starts as fast as the program that it unpacked."""
    program = debian.copy(pyz)
    debian.run(program, "--version")
    (copy,) = debian.path(COPIES).iterdir()
    before = copy.stat().st_mtime_ns
    assert "tsfc.cli.main" in imported(debian, os.path.realpath(PYTHON), program)
    unpacked = imported(
        debian, *(f"{COPIES}/{copy.name}/bin/{name}" for name in ("python3", "tsfc"))
    )
    zipped = imported(debian, os.path.realpath(PYTHON), program)
    assert zipped - unpacked == {"launcher", "runpy"}
    assert copy.stat().st_mtime_ns == before


def imported(debian: Debian, python: str, program: str) -> set[str]:
    """Return the modules that a start of a program imports."""
    ran = debian.run(python, "-I", "-X", "importtime", program, "--version")
    return {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}


def test_units_start_the_copy(debian: Debian, pyz: Path) -> None:
    debian.run(debian.copy(pyz), "units", "--install")
    (copy,) = debian.path(COPIES).iterdir()
    text = debian.path(f"{UNITS}/tailscale-exporter.service").read_text()
    assert f'ExecStart="{COPIES}/{copy.name}/bin/tsfc" "exporter"' in text
    assert debian.run(f"{COPIES}/{copy.name}/bin/tsfc", "--version").status == 0


def test_a_user_who_may_not_write_there_gets_one_line(debian: Debian, pyz: Path) -> None:
    ran = debian.run(
        *UNPRIVILEGED, "env", "XDG_CACHE_HOME=/root/cache", debian.copy(pyz), check=False
    )
    assert ran.status == 1
    assert ran.stderr.startswith("tsfc: unpacking into /root/cache/tsfc/")
    assert ran.stderr.count("\n") == 1


def test_its_units_run_under_systemd(pyz: Path) -> None:
    """In their sandbox, with users of their own, even if root's files are private."""
    require_bootable()
    files = {TAILSCALED_UNIT: TAILSCALED.replace(TSFC, str(pyz)), CAPTURE: STATUS_LINE}
    with booted(files=files, visible=(pyz.parent,)) as machine:
        machine.run("sh", "-euc", f"umask 077; {pyz} units --install")
        machine.run("systemctl", "start", "tailscaled.service")
        machine.run("systemctl", "start", "tailscale-exporter.service")
        metrics = machine.path("/var/lib/alloy/tailscale-peers.prom").read_text()
        assert "tailscale_up 1" in metrics
