"""An observation: one look at tailscaled. A capture is NDJSON, one observation a line."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct
from returns.result import Failure, Result, Success

from tsfc.core.clock import Boot, Instant
from tsfc.core.faults import Down, Fault
from tsfc.core.tailscale.status import Status, decode
from tsfc.core.text import one_line

UnixTime = Annotated[float, Meta(ge=0, le=253402300799)]
"Unix time in seconds; the bound is the end of the year 9999."


class Observation(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One look at tailscaled: its status, or why there was none."""

    captured_at: UnixTime
    boot: Boot | None = None
    "The clock that nobody sets, at the same moment; absent where it is not known. With it, a step of the wall clock is seen as one."
    status: Raw = Raw()
    "The document as it was, for `core.status` to read; empty where there is none."
    fault: str | None = None


_DECODER = msgspec.json.Decoder(Observation)
_ENCODER = msgspec.json.Encoder()


def parse(line: bytes) -> Result[Observation, str]:
    """Reads a line of a capture. The status in it is not looked into: whether it can be used is for `core.status` to say."""
    try:
        observation = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(one_line(str(error)))
    if bool(bytes(observation.status)) == (observation.fault is not None):
        return Failure("it has not one of status and fault")
    return Success(observation)


def line(observation: Observation) -> bytes:
    """Returns the observation as a line of a capture, whatever white space its status has."""
    if observation.fault is not None:
        return _ENCODER.encode(observation) + b"\n"
    return (
        _ENCODER.encode(
            msgspec.structs.replace(
                observation, status=Raw(msgspec.json.format(bytes(observation.status), indent=-1))
            )
        )
        + b"\n"
    )


def status_of(observation: Observation) -> Result[Status, Fault]:
    """The status that was observed, or why there is none that can be used."""
    if observation.fault is not None:
        return Failure(Down(observation.fault))
    return decode(observation.status)


def instant(observation: Observation) -> Instant:
    """Returns when it was made, in whole seconds."""
    return Instant(int(observation.captured_at), observation.boot)
