"""A booted machine with tsfc in `/opt/tsfc` and a stand-in as `tailscaled.service`."""

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
from support.processes import Completed, series, short_directory
from support.required import require
from support.statuses import encoded, peer

PACKAGE = "/opt/tsfc"
TSFC = f"{PACKAGE}/bin/tsfc"
PYTHON = "/usr/bin/python3"
"Python that the sandbox of the units does not hide, unlike that of the tests."
DISTRIBUTIONS = (
    "tsfc",
    "httptools",
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
TAILSCALED = f"""[Service]
Restart=on-failure
RuntimeDirectory=tailscale
ExecStart={TSFC} stand-in --capture {CAPTURE} --socket {SOCKET}
ExecStartPost=/bin/sh -c 'until [ -S {SOCKET} ]; do sleep 0.01; done'
TimeoutStopSec=5s
"""
"""The stand-in. As in the unit of Tailscale, systemd's default start limit applies:
after 5 starts in 10 s, the unit fails."""
STATUS_LINE = (
    f'{{"captured_at": 0, "status": {encoded(peer("bravo"), peer("rpi3", "derp")).decode()}}}\n'
)
"Capture that the stand-in plays: one peer is direct, another one on relay."
FILES = {"exporter": "peers", "native-metrics": "native", "watchdog": "watchdog"}
"NAME in `tailscale-NAME.prom`, for each job that writes metrics by default."


@dataclass(frozen=True)
class Host:
    """A machine with tsfc."""

    machine: Machine

    def tsfc(self, *arguments: str, check: bool = True) -> Completed:
        """Run tsfc as root, outside of any unit."""
        return self.machine.run(TSFC, *arguments, check=check)

    def start(self, job: str, *, check: bool = True) -> Completed:
        """Start the service of a job and wait until it has ended."""
        return self.machine.run("systemctl", "start", service(job), check=check)

    def exported(self, name: str) -> dict[str, float]:
        """Return the samples in `tailscale-NAME.prom`."""
        return series(self.machine.path(f"{METRICS}/tailscale-{name}.prom").read_text())

    def said(self, job: str) -> list[str]:
        """Return the lines of a job in the journal."""
        return self.machine.journal(f"--identifier=tailscale-{job}")

    def without_timers(self) -> Host:
        """Stop the timers, so that jobs run only when a test starts them."""
        self.machine.run("systemctl", "stop", *(f"tailscale-{job}.timer" for job in JOBS))
        return self

    def failed_units(self) -> list[str]:
        """Return the failed units."""
        return [
            line.split()[0]
            for line in self.machine.run(
                "systemctl", "list-units", "--failed", "--plain", "--no-legend"
            ).stdout.splitlines()
        ]

    @contextmanager
    def overridden(self, unit: str, text: str) -> Generator[None]:
        """Give a unit a drop-in while the block runs."""
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
    """Boot a host with `tsfc units --install`, given these options.

    The other arguments are those of `booted`. A `tailscaled.service` in `files`
    replaces the stand-in.
    """
    with booted(
        files={TAILSCALED_UNIT: TAILSCALED, CAPTURE: STATUS_LINE} | dict(files),
        network=network,
        visible=visible,
    ) as machine:
        machine.run("tar", "--extract", "--directory=/", stdin=_package())
        machine.run("systemctl", "start", "tailscaled.service")
        host = Host(machine)
        host.tsfc("units", "--install", *install)
        yield host


def service(job: str) -> str:
    """Return the name of the service of a job."""
    return f"tailscale-{job}.service"


def require_bootable() -> None:
    """Skip the test if no host can be booted; fail it in CI."""
    require(unbootable() or _unusable_python())


@cache
def _unusable_python() -> str | None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        installed = subprocess.run(
            [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"running {PYTHON}, which runs the units: {error}"
    return (
        None
        if installed == version
        else f"{PYTHON} is Python {installed}; the packages of this environment are for {version}"
    )


@cache
def _package() -> bytes:
    """Return an archive of a virtual environment with tsfc, as pip creates it."""
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
        program.write_text(f"#!{PACKAGE}/bin/python3\nfrom tsfc.__main__ import entry\n\nentry()\n")
        program.chmod(0o755)
        tar.add(top, PACKAGE.removeprefix("/"), filter=_readable)
    return packed.getvalue()


def _readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Make a file readable for all with any umask, because units do not run as root."""
    entry.mode |= 0o555 if entry.isdir() or entry.mode & 0o100 else 0o444
    return entry
