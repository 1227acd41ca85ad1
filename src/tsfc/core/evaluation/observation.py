"""Observations of tailscaled. A capture is NDJSON with one observation per line."""

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
"Unix time in seconds, up to the end of the year 9999."


class Observation(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The status at one time, or why it could not be read."""

    captured_at: UnixTime
    boot: Boot | None = None
    """Boot clock at that time, if known. With it, replay recognizes a step of the wall
    clock."""
    status: Raw = Raw()
    "Status document, unchanged; empty if there is a fault."
    fault: str | None = None


_DECODER = msgspec.json.Decoder(Observation)
_ENCODER = msgspec.json.Encoder()


def parse(line: bytes) -> Result[Observation, str]:
    """Read one line of a capture.

    The status in it is not decoded: `status_of` does that.
    """
    try:
        observation = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(one_line(str(error)))
    if bool(bytes(observation.status)) == (observation.fault is not None):
        return Failure("it has not one of status and fault")
    return Success(observation)


def line(observation: Observation) -> bytes:
    """Encode an observation as one line of a capture, with a compact status."""
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
    """Decode the status, or return why there is none."""
    if observation.fault is not None:
        return Failure(Down(observation.fault))
    return decode(observation.status)


def instant(observation: Observation) -> Instant:
    """Time of the observation, in whole seconds."""
    return Instant(int(observation.captured_at), observation.boot)
