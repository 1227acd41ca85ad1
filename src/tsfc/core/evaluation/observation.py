"""Observations: what tailscaled reported at one moment.

A capture is NDJSON, one observation per line.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct, field
from returns.result import Failure, Result, Success

from tsfc.core.clock import Boot, Instant, Seconds
from tsfc.core.faults import Down, Fault
from tsfc.core.tailscale.json_input import problem, to_utf8
from tsfc.core.tailscale.status import Status, decode
from tsfc.core.text import one_line

FAULT_LIMIT = 4000
"Maximum length of the text of a fault, in characters; longer than those of tsfc."

UnixTime = Annotated[float, Meta(ge=0, le=253402300799)]
"Unix time in seconds, up to the end of the year 9999."


class Observation(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A status or a fault, and its time. Exactly one of the two is set."""

    captured_at: UnixTime
    boot: Boot | None = None
    "Boot clock at the same moment, if known. It reveals steps of the wall clock."
    tailscaled_start: Seconds | None = None
    "Unix time when tailscaled had started, if known."
    status: Raw = Raw()
    "JSON of tailscaled's status, unchanged; empty if there is a fault."
    fault: str | None = None
    "Why no status could be read."


class Decoded(Observation, frozen=True):
    """An observation whose status is decoded already. Its JSON in `status` is empty."""

    decoded: Status = Status()


class _Whole(Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of an observation, to decode the status in the same pass."""

    captured_at: UnixTime
    boot: Boot | None = None
    tailscaled_start: Seconds | None = None
    status: Status | None = None
    fault: str | None = None


class _Bare(Struct):
    backend_state: str = field(name="BackendState")


NOT_ONE = "an observation has either a status or a fault"
BARE_STATUS = (
    'it is a status without `captured_at`; expected {"captured_at": UNIX_SECONDS, "status": {…}}'
)
_DECODER = msgspec.json.Decoder(Observation)
_WHOLE_DECODER = msgspec.json.Decoder(_Whole)
_ENCODER = msgspec.json.Encoder()


def parse(line: bytes) -> Result[Observation, str]:
    """Parse a line of a capture. The status in it is not validated: see `status_of`."""
    line = to_utf8(line)
    try:
        observation = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(BARE_STATUS if _is_bare_status(line) else problem(line, error))
    if bool(bytes(observation.status)) == (observation.fault is not None):
        return Failure(NOT_ONE)
    return Success(observation)


def parse_whole(line: bytes) -> Result[Observation, str]:
    """Parse a line as `parse` does, and decode its status in the same pass.

    That is faster, but the JSON of the status is lost. Lines with a fault, or with a
    status that needs more than one try (see `decode`), are parsed by `parse`.
    """
    try:
        whole = _WHOLE_DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return parse(line)
    if whole.status is None or whole.fault is not None or not whole.status.backend_state:
        return parse(line)
    return Success(
        Decoded(whole.captured_at, whole.boot, whole.tailscaled_start, decoded=whole.status)
    )


def _is_bare_status(line: bytes) -> bool:
    """Whether the line is a status as `tailscale status --json` prints it."""
    try:
        return bool(msgspec.json.decode(line, type=_Bare).backend_state)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def line(observation: Observation) -> bytes:
    """Encode an observation as a line of a capture. Compacts the JSON of the status."""
    if observation.fault is None:
        status = msgspec.json.format(bytes(observation.status), indent=-1)
        observation = msgspec.structs.replace(observation, status=Raw(status))
    return _ENCODER.encode(observation) + b"\n"


def status_of(observation: Observation) -> Result[Status, Fault]:
    """Decode the status of an observation. Fails with the fault if there is none.

    The text of the fault becomes one printable line: a capture may come from anybody.
    """
    if isinstance(observation, Decoded):
        return Success(observation.decoded)
    if observation.fault is not None:
        return Failure(Down(one_line(observation.fault, FAULT_LIMIT)))
    return decode(observation.status)


def instant(observation: Observation) -> Instant:
    """Time of an observation, in whole seconds."""
    return Instant(int(observation.captured_at), observation.boot)
