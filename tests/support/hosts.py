"""A booted machine as a user has it: tsfc in `/opt/tsfc`, and a `tailscaled.service` that is a stand-in."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from support.booted import UNITS, Machine, booted, unbootable
from support.processes import Ran, series, short_directory
from support.required import require
from support.statuses import encoded, peer

PACKAGE = "/opt/tsfc"
TSFC = f"{PACKAGE}/bin/tsfc"
PYTHON = "/usr/bin/python3"
"The one that the sandbox of the units lets them see, whatever the tests run on."
DISTRIBUTIONS = (
    "tsfc",
    "msgspec",
    "returns",
    "prometheus_client",
    "typing_extensions",
    "zstandard",
    "rich",
)
SOCKET = "/run/tailscale/tailscaled.sock"
CAPTURE = "/opt/capture.ndjson"
TAILSCALED_UNIT = f"{UNITS}/tailscaled.service"
METRICS = "/var/lib/alloy"
STATE = "/var/lib/tailscale-watchdog"
JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")
TAILSCALED = f"""[Unit]
StartLimitIntervalSec=0

[Service]
RuntimeDirectory=tailscale
ExecStart={TSFC} stand-in --capture {CAPTURE} --socket {SOCKET}
ExecStartPost=/bin/sh -c 'until [ -S {SOCKET} ]; do sleep 0.01; done'
TimeoutStopSec=5s
"""
SEEN = f'{{"captured_at": 0, "status": {encoded(peer("bravo"), peer("rpi3", "derp")).decode()}}}\n'
"What the stand-in plays: a peer that is direct, and one that is on relay."
FILES = {"exporter": "peers", "native-metrics": "native", "watchdog": "watchdog"}
"What the file of each job is called that writes one by itself: `tailscale-NAME.prom`."


@dataclass(frozen=True)
class Host:
    """A machine on which tsfc can be used."""

    machine: Machine

    def tsfc(self, *arguments: str, check: bool = True) -> Ran:
        """Runs tsfc as root, outside of any unit."""
        return self.machine.run(TSFC, *arguments, check=check)

    def start(self, job: str, *, check: bool = True) -> Ran:
        """Starts a job's service and waits until it has ended."""
        return self.machine.run("systemctl", "start", service(job), check=check)

    def exported(self, name: str) -> dict[str, float]:
        """Returns the series of a metrics file, `tailscale-NAME.prom`."""
        return series(self.machine.path(f"{METRICS}/tailscale-{name}.prom").read_text())

    def said(self, job: str) -> list[str]:
        """Returns what there is in the journal under the identifier of a job."""
        return self.machine.journal(f"--identifier=tailscale-{job}")

    def without_timers(self) -> Host:
        """Stops the timers, so that a job runs when a test says so and not before."""
        self.machine.run("systemctl", "stop", *(f"tailscale-{job}.timer" for job in JOBS))
        return self

    def failed_units(self) -> list[str]:
        """Returns the units that have failed."""
        return [
            line.split()[0]
            for line in self.machine.run(
                "systemctl", "list-units", "--failed", "--plain", "--no-legend"
            ).stdout.splitlines()
        ]

    @contextmanager
    def overridden(self, unit: str, text: str) -> Generator[None]:
        """Gives a unit a drop-in while the block lasts."""
        drop_in = self.machine.path(f"/run/systemd/system/{unit}.d/test.conf")
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text(text)
        self.machine.run("systemctl", "daemon-reload")
        try:
            yield
        finally:
            drop_in.unlink()
            drop_in.parent.rmdir()
            self.machine.run("systemctl", "daemon-reload")


@contextmanager
def hosting(
    *install: str,
    files: Mapping[str, str] = {},
    network: Path | None = None,
    visible: Sequence[Path] = (),
) -> Generator[Host]:
    """Boots a host whose units were installed with `tsfc units --install`, with these flags, and starts its stand-in; ends it with the block.

    The other arguments are those of `booted`; a `tailscaled.service` among the files is there instead of the stand-in.
    """
    with booted(
        files={TAILSCALED_UNIT: TAILSCALED, CAPTURE: SEEN} | dict(files),
        network=network,
        visible=visible,
    ) as machine:
        machine.run("tar", "--extract", "--directory=/", stdin=_package())
        machine.run("systemctl", "start", "tailscaled.service")
        host = Host(machine)
        host.tsfc("units", "--install", *install)
        yield host


def service(job: str) -> str:
    """Returns the name of a job's service."""
    return f"tailscale-{job}.service"


def require_bootable() -> None:
    """Skips the test where no such host can be booted, and fails it where CI does not boot one."""
    require(unbootable() or _unusable_python())


@cache
def _unusable_python() -> str | None:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        theirs = subprocess.run(
            [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"running {PYTHON}, which the units run on: {error}"
    return (
        None
        if theirs == ours
        else f"{PYTHON} is Python {theirs}; the packages of this environment are for {ours}"
    )


@cache
def _package() -> bytes:
    """Returns an archive of what `pip install` would have put into a virtual environment, and the compiled modules beside."""
    site = Path(
        PACKAGE, f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    )
    packed = io.BytesIO()
    with short_directory() as directory, tarfile.open(fileobj=packed, mode="w") as tar:
        top = directory / "tsfc"
        inside = directory / site.relative_to("/opt")
        inside.mkdir(parents=True)
        for name in DISTRIBUTIONS:
            spec = find_spec(name)
            assert spec
            assert spec.origin
            origin = Path(spec.origin)
            subprocess.run(
                [
                    "cp",
                    "-a",
                    str(origin.parent if origin.name == "__init__.py" else origin),
                    str(inside),
                ],
                check=True,
            )
        subprocess.run([PYTHON, "-m", "compileall", "-q", str(inside)], check=True)
        (top / "bin").mkdir()
        (top / "bin/python3").symlink_to(PYTHON)
        (top / "pyvenv.cfg").write_text("home = /usr/bin\n")
        program = top / "bin/tsfc"
        program.write_text(f"#!{PACKAGE}/bin/python3\nfrom tsfc.cli.main import entry\n\nentry()\n")
        program.chmod(0o755)
        tar.add(top, PACKAGE.removeprefix("/"), filter=_readable)
    return packed.getvalue()


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Lets everybody read it, whatever the umask was: the units are not root."""
    entry.mode |= 0o555 if entry.isdir() or entry.mode & 0o100 else 0o444
    return entry
