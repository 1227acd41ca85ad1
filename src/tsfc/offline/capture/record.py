"""`tsfc capture`: append observations to a capture.

A record is one write to the end of the file. So a crash leaves at most one torn record,
and two processes can write to one file. In a compressed capture, a record is a gzip
member or a zstd frame of its own, with the same result.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import Raw, Struct
from returns.result import Failure, Result, Success

from tsfc.core.evaluation.observation import Observation, line
from tsfc.core.faults import Fault, exit_status
from tsfc.core.tailscale.status import decode
from tsfc.shell import textfile
from tsfc.shell.atomic import write_all
from tsfc.shell.clocks import instant, unix_time
from tsfc.shell.console import print_error
from tsfc.shell.signals import LONGEST_WAIT_SECONDS
from tsfc.shell.tailscaled.observe import RunOptions, raw_status

TOOL = "capture"
MODE = 0o600
"Permissions of a capture: a status has the names of people and places."


class Options(Struct, frozen=True):
    """Options of `tsfc capture`, in addition to those of all jobs."""

    output: str
    interval: float | None
    "Seconds between observations; None for a single one."
    duration: float | None
    "Seconds until the last observation; None to continue until terminated."
    redact: bool
    redact_key: str | None
    max_size: int | None
    "Size in bytes at which a new file is started; None for no limit."
    keep: int
    "Number of full files to keep."


def run(common: RunOptions, options: Options) -> int:
    """Capture once or at an interval; return the worst exit status."""
    key = _key(options)
    if isinstance(key, Failure):
        print_error(TOOL, key.failure())
        return 1
    begun = time.monotonic()
    worst = 0
    number = 0
    while True:
        status = _capture(common, options, key.unwrap())
        worst = max(worst, status)
        if options.interval is None or status > 1:
            return min(worst, 1)
        passed = time.monotonic() - begun
        number = max(
            number + 1, int(passed / options.interval)
        )  # what was missed is not made up for
        due = number * options.interval
        if options.duration is not None and due >= options.duration:
            return worst
        while (left := begun + due - time.monotonic()) > 0:
            time.sleep(min(left, LONGEST_WAIT_SECONDS))


def observe(common: RunOptions) -> tuple[Observation, Fault | None]:
    """Observe tailscaled once."""
    raw = raw_status(common)
    at = round(unix_time(common.now), 3)
    boot = instant(common.now).boot
    readable = raw if isinstance(raw, Failure) else decode(raw.unwrap())
    if isinstance(readable, Failure):
        fault: Fault = readable.failure()
        return Observation(at, boot, fault=fault.detail), fault
    return Observation(at, boot, status=Raw(raw.unwrap())), None


def record(path: str, observation: Observation) -> Result[bytes, str]:
    """Encode an observation for a file; its name determines the compression."""
    plain = line(observation)
    if path.endswith(".gz"):
        return Success(gzip.compress(plain, mtime=0))
    if path.endswith(".zst"):
        import zstandard  # noqa: PLC0415 - most captures are not

        return Success(zstandard.ZstdCompressor().compress(plain))
    return Success(plain)


def append(path: str, data: bytes, *, max_size: int | None, keep: int) -> Result[None, str]:
    """Append all of a record, or nothing.

    A torn record at the end of a plain file keeps a line of its own.
    """
    if path == textfile.STANDARD_OUTPUT:
        return _written(1, data, path)
    try:
        if max_size is not None:
            _rotate(path, len(data), max_size, keep)
        descriptor = os.open(
            path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, MODE
        )
    except OSError as error:
        return Failure(_complaint(path, error))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return Failure(
                f"writing {path}: it is not a regular file; "
                "set --output to a file, or to - for standard output"
            )
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        is_plain = not path.endswith((".gz", ".zst"))
        torn = is_plain and size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        written = _written(descriptor, b"\n" + data if torn else data, path)
        if isinstance(written, Failure):
            with suppress(OSError):
                os.ftruncate(descriptor, size)
        return written
    finally:
        os.close(descriptor)


def size(text: str) -> int | None:
    """Return the number of bytes that `100M` stands for; None for an invalid size."""
    found = re.fullmatch(r"([0-9]{1,12})([kMG]?)", text)
    return (
        None
        if found is None or int(found[1]) == 0
        else int(found[1]) * {"": 1, "k": 2**10, "M": 2**20, "G": 2**30}[found[2]]
    )


def _capture(
    common: RunOptions, options: Options, redacted: Callable[[Observation], Observation]
) -> int:
    """Capture once, and return the exit status; 2 if the capture cannot be written."""
    observation, fault = observe(common)
    if fault is not None:
        print_error(TOOL, fault.detail)
    data = record(options.output, redacted(observation))
    written = (
        data
        if isinstance(data, Failure)
        else append(options.output, data.unwrap(), max_size=options.max_size, keep=options.keep)
    )
    if isinstance(written, Failure):
        print_error(TOOL, written.failure())
        return 2
    return exit_status(fault)


def _written(descriptor: int, data: bytes, path: str) -> Result[None, str]:
    try:
        written = os.write(descriptor, data)
        if written < len(data):
            write_all(descriptor, data[written:])  # and so learn why
    except OSError as error:
        return Failure(_complaint(path, error))
    return Success(None)


def _rotate(path: str, more: int, max_size: int, keep: int) -> None:
    """Rotate the file if `more` bytes would exceed `max_size`.

    It becomes `.1`, that becomes `.2`, and the last one is removed.
    """
    try:
        if os.stat(path).st_size + more <= max_size:
            return
    except FileNotFoundError:
        return
    for number in range(keep, 0, -1):
        with suppress(FileNotFoundError):
            os.replace(path if number == 1 else f"{path}.{number - 1}", f"{path}.{number}")
    if keep == 0:
        os.unlink(path)


def _key(options: Options) -> Result[Callable[[Observation], Observation], str]:
    """Return the function that redacts; without --redact, the identity."""
    if not options.redact:
        return Success(lambda observation: observation)
    from tsfc.offline.capture.redact import redacted  # noqa: PLC0415 - most captures are not

    if options.redact_key is not None:
        given = options.redact_key.encode(errors="surrogateescape")
        return Success(lambda observation: redacted(observation, given))
    kept = _kept_key(options.output)
    if isinstance(kept, Failure):
        return kept
    key = kept.unwrap()
    return Success(lambda observation: redacted(observation, key))


def _kept_key(output: str) -> Result[bytes, str]:
    """Return the key beside the capture, and create it if it is missing.

    So later runs that append to the capture use the same pseudonyms.
    """
    if output == textfile.STANDARD_OUTPUT:
        return Success(secrets.token_bytes(32))
    path = f"{output}.key"
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        except FileExistsError:
            with open(path, "rb") as file:
                key = file.read(4096).strip()
            return (
                Success(key)
                if key
                else Failure(
                    f"reading {path}: it is empty; "
                    "remove it to create a new key, with other pseudonyms"
                )
            )
        try:
            key = secrets.token_hex(32).encode()
            write_all(descriptor, key + b"\n")
        finally:
            os.close(descriptor)
    except OSError as error:
        return Failure(_complaint(path, error))
    return Success(key)


def _complaint(path: str, error: OSError) -> str:
    match error:
        case FileNotFoundError():
            advice = (
                f"create the directory {os.path.dirname(path) or '.'}, or give another --output"
            )
        case PermissionError():
            advice = "run as a user who may write there, or give another --output"
        case _:
            advice = "see to the disk, or give another --output; the capture is as it was"
    return f"writing {path}: {error.strerror}; {advice}"
