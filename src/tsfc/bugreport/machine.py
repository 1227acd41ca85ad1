"""What the machine tells about tsfc: versions, units, the journal, files of the jobs.

Everything is optional. What cannot be read is a failure with one line that says why.
"""

from __future__ import annotations

import glob
import os
import platform
import re
from datetime import UTC, datetime
from importlib import metadata

import msgspec
from msgspec import Struct, field
from returns.result import Failure, Result, Success

from tsfc.shell import program, regular, textfile, waiting
from tsfc.units.rendering import AGENT, JOBS

TIMEOUT_SECONDS = 10.0
"Timeout of each call of `systemctl` and `journalctl`."
JOURNAL_LINES = 100
"Newest lines of each job."
IDENTIFIERS = tuple(
    f"tailscale-{name}" for name in (*JOBS, "watchdog-restart", "watchdog-notify", AGENT)
)
"Identifiers of the jobs in the journal (`SyslogIdentifier=`)."
LIBRARIES = ("msgspec", "returns", "prometheus-client", "httptools")
_OWN_UNIT = re.compile(rf"tailscale-(?:{'|'.join((*JOBS, AGENT))})\b[^\s/]*")
_METRICS_PATH = re.compile(r'--metrics-path"?[ =]"?([^"\s]+\.prom)')
_IDENTIFIER = re.compile(r"^SyslogIdentifier=(tailscale-\S+)$", re.MULTILINE)


class Entry(Struct, frozen=True):
    """An entry of the journal, as `journalctl --output=json` prints it."""

    time: str = field(name="__REALTIME_TIMESTAMP")
    "Microseconds since 1970."
    message: str | list[int] | None = field(default=None, name="MESSAGE")
    "A list of bytes if it is not UTF-8; None if it is too long."
    identifier: str = field(default="", name="SYSLOG_IDENTIFIER")


_ENTRIES = msgspec.json.Decoder(Entry)


def versions() -> dict[str, str]:
    """Return the versions of what tsfc runs on; only those that can be read."""
    system = os.uname()
    found = {
        "tsfc": _package("tsfc"),
        "Python": platform.python_version(),
        **{name: _package(name) for name in LIBRARIES},
        "kernel": system.release,
        "machine": system.machine,
        "distribution": _distribution(),
        "systemd": _systemd(),
    }
    return {name: version for name, version in found.items() if version}


def units() -> Result[str, str]:
    """Return the files of tsfc's units, with drop-ins, as `systemctl cat` prints."""
    listed = _output(
        "systemctl", "list-unit-files", "--no-legend", "--no-pager", "--plain", "tailscale-*"
    )
    if isinstance(listed, Failure):
        return listed
    names = [line.partition(" ")[0] for line in listed.unwrap().splitlines()]
    own = [name for name in names if _OWN_UNIT.fullmatch(name)]
    return _output("systemctl", "cat", "--no-pager", *own) if own else Failure(NO_UNITS)


NO_UNITS = "reading the units: systemd has none of tsfc's; install them with `tsfc units`"


def states() -> Result[str, str]:
    """Return the states of tsfc's loaded units: name, load, active and sub-state."""
    return _output(
        *("systemctl", "list-units", "--all", "--no-legend", "--no-pager", "--plain"),
        *("--full", "tailscale-*"),
    ).map(
        lambda text: "\n".join(
            " ".join(line.split()[:4]) for line in text.splitlines() if _OWN_UNIT.match(line)
        )
    )


def identifiers(unit_files: str) -> tuple[str, ...]:
    """Return the identifiers of the jobs in the journal, those of instances too."""
    return tuple(dict.fromkeys((*IDENTIFIERS, *_IDENTIFIER.findall(unit_files))))


def journal(identifier: str) -> Result[tuple[str, ...], str]:
    """Return the newest lines of a job: time, identifier, message."""
    printed = _output(
        *("journalctl", "--quiet", "--no-pager", "--output=json", f"--lines={JOURNAL_LINES}"),
        *("--output-fields=MESSAGE,SYSLOG_IDENTIFIER", f"--identifier={identifier}"),
    )
    if isinstance(printed, Failure):
        return printed
    entries: list[str] = []
    for line in printed.unwrap().splitlines():
        try:
            entries.append(_entry(_ENTRIES.decode(line)))
        except (msgspec.MsgspecError, ValueError, OverflowError):
            entries.append("an entry that cannot be read")
    return Success(tuple(entries))


def metrics_paths(directory: str, unit_files: str) -> tuple[str, ...]:
    """Return the metrics files of the jobs: those in a directory and those of units."""
    in_directory = glob.glob(f"{glob.escape(directory)}/tailscale-*.prom")
    return tuple(sorted({*in_directory, *_METRICS_PATH.findall(unit_files)}))


def metrics(path: str) -> Result[tuple[str, ...], str]:
    """Return the lines of a metrics file."""
    content = regular.read_unlinked(path, textfile.SIZE_LIMIT)
    if isinstance(content, Failure):
        return Failure(f"reading {path}: {content.failure()}")
    return Success(tuple(content.unwrap().decode(errors="replace").split("\n")))


def _entry(entry: Entry) -> str:
    at = datetime.fromtimestamp(int(entry.time) // 10**6, UTC)
    message = entry.message or ""
    text = message if isinstance(message, str) else bytes(message).decode(errors="replace")
    return f"{at:%Y-%m-%dT%H:%M:%SZ} {entry.identifier} {text}"


def _package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _distribution() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return f"{release.get('ID', '')} {release.get('VERSION_ID', '')}".strip()


def _systemd() -> str:
    printed = _output("systemctl", "--version").value_or("")
    found = re.match(r"systemd ([0-9]{1,4})\b", printed)
    return found[1] if found else ""


def _output(*argv: str) -> Result[str, str]:
    """Return what a program prints; fail only if that is nothing but an error."""
    action = f"running `{' '.join(argv[:2])}`"
    result = waiting.run(program.run(argv, timeout=TIMEOUT_SECONDS))
    if isinstance(result, Failure):
        return Failure(f"{action}: {program.problem_of(result.failure())}")
    completed = result.unwrap()
    if completed.status != 0 and completed.stderr.strip() and not completed.stdout:
        return Failure(f"{action}: {completed.summary()}")
    return Success(completed.stdout.decode(errors="replace"))
