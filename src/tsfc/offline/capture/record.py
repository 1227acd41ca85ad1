"""`tsfc capture`: observe tailscaled, and append the observations to a capture.

Each record is one write to the end of the file. So a crash leaves at most one torn
record, and two processes can append to the same file. Each record is compressed
separately, as a gzip member or a zstd frame, so this holds for compressed files too.
"""

from __future__ import annotations

import gzip
import os
import re
import secrets
import time
from collections.abc import Callable

from msgspec import Raw, Struct
from returns.result import Failure, Result, Success

from tsfc.core.evaluation.observation import Observation, line
from tsfc.core.faults import Fault, exit_status
from tsfc.core.tailscale.status import decode
from tsfc.offline.capture.append import append, locked, permission_warning, write_error
from tsfc.shell import signals, textfile, waiting
from tsfc.shell.atomic import write_all
from tsfc.shell.clocks import instant, unix_time
from tsfc.shell.console import print_error
from tsfc.shell.tailscaled.observe import RunOptions, raw_status, tailscaled_start

TOOL = "capture"


class Options(Struct, frozen=True):
    """Options of `tsfc capture`, besides those of every job."""

    output: str
    interval: float | None
    "Seconds between observations; None to make only one."
    duration: float | None
    "Seconds after which capturing stops; None for no limit."
    redact: bool
    redact_key: str | None
    max_size: int | None
    "Size in bytes at which the file is rotated; None for no limit."
    keep: int
    "Number of rotated files to keep."


def run(common: RunOptions, options: Options) -> int:
    """Capture once or at an interval; return the worst exit status."""
    redact = _redaction(options)
    if isinstance(redact, Failure):
        print_error(TOOL, redact.failure())
        return 1
    begun = time.monotonic()
    worst = 0
    number = 0
    while True:
        status = _capture(common, options, redact.unwrap())
        if number == 0 and status <= 1:
            _warn_of_permissions(options.output)
        worst = max(worst, status)
        if options.interval is None or status > 1:
            return min(worst, 1)

        # The next observation is due at a multiple of the interval; skip missed ones.
        elapsed = time.monotonic() - begun
        number = max(number + 1, int(elapsed / options.interval))
        due = number * options.interval
        if options.duration is not None and due >= options.duration:
            return worst

        signals.sleep(begun + due - time.monotonic())


def observe(common: RunOptions) -> tuple[Observation, Fault | None]:
    """Observe tailscaled once; return the observation and its fault, if any."""
    raw = waiting.run(raw_status(common))
    at = round(unix_time(common.now), 3)
    boot = instant(common.now).boot
    readable = raw if isinstance(raw, Failure) else decode(raw.unwrap())
    if isinstance(readable, Failure):
        fault: Fault = readable.failure()
        return Observation(at, boot, fault=fault.detail), fault
    start = None if boot is None else tailscaled_start(common)
    return Observation(at, boot, start, Raw(raw.unwrap())), None


def record(path: str, observation: Observation) -> Result[bytes, str]:
    """Return the record of an observation, compressed as the suffix of `path` says."""
    plain = line(observation)
    if path.endswith(".gz"):
        return Success(gzip.compress(plain, mtime=0))
    if path.endswith(".zst"):
        import zstandard  # noqa: PLC0415 - only for zstd

        return Success(zstandard.ZstdCompressor().compress(plain))
    return Success(plain)


def size(text: str) -> int | None:
    """Return the number of bytes of a size such as `100M`, or None if it is invalid."""
    found = re.fullmatch(r"([0-9]{1,12})([kMG]?)", text)
    return (
        None
        if found is None or int(found[1]) == 0
        else int(found[1]) * {"": 1, "k": 2**10, "M": 2**20, "G": 2**30}[found[2]]
    )


def _capture(
    common: RunOptions, options: Options, redact: Callable[[Observation], Observation]
) -> int:
    """Capture once; return the exit status, or 2 if writing failed: stop then."""
    observation, fault = observe(common)
    if fault is not None:
        print_error(TOOL, fault.detail)
    data = record(options.output, redact(observation))
    written = (
        data
        if isinstance(data, Failure)
        else append(options.output, data.unwrap(), max_size=options.max_size, keep=options.keep)
    )
    if isinstance(written, Failure):
        print_error(TOOL, written.failure())
        return 2
    return exit_status(fault)


def _warn_of_permissions(path: str) -> None:
    warning = None if path == textfile.STANDARD_OUTPUT else permission_warning(path)
    if warning is not None:
        print_error(TOOL, warning)


def _redaction(options: Options) -> Result[Callable[[Observation], Observation], str]:
    """Return the function that redacts observations; the identity without --redact."""
    if not options.redact:
        return Success(lambda observation: observation)
    from tsfc.offline.capture.redact import redacted  # noqa: PLC0415 - only for --redact

    if options.redact_key is not None:
        option = options.redact_key.encode(errors="surrogateescape")
        return Success(lambda observation: redacted(observation, option))
    stored = _stored_key(options.output)
    if isinstance(stored, Failure):
        return stored
    key = stored.unwrap()
    return Success(lambda observation: redacted(observation, key))


def _stored_key(output: str) -> Result[bytes, str]:
    """Return the key in the file `OUTPUT.key`; write a new one if there is none.

    So all runs that append to one capture use the same pseudonyms. For standard output,
    the key is random and not stored.
    """
    if output == textfile.STANDARD_OUTPUT:
        return Success(secrets.token_bytes(32))
    path = f"{output}.key"
    try:
        with locked(path) as descriptor:
            key = os.read(descriptor, 4096).strip()
            if not key:
                key = secrets.token_hex(32).encode()
                write_all(descriptor, key + b"\n")
    except OSError as error:
        return Failure(write_error(path, error))
    return Success(key)
