"""A capture: what was observed of a tailscaled over time, as NDJSON, one observation a line."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct
from returns.result import Failure, Result, Success

from tsfc.core.status import decode
from tsfc.core.text import one_line


class Observation(Struct, frozen=True, forbid_unknown_fields=True):
    """One look at tailscaled: its status, or why there was none."""

    captured_at: Annotated[float, Meta(ge=0)]
    "Unix time in seconds."
    status: Raw = Raw()
    "The document as it was, for `core.status` to read; empty where there is none."
    fault: str | None = None


_DECODER = msgspec.json.Decoder(Observation)


def read(path: str) -> Result[tuple[Observation, ...], str]:
    """Reads a whole capture, in the order of its times. Fails, in one line, where a line of it is no observation or there is none."""
    observations: list[Observation] = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                read_line = _observation(line)
                if isinstance(read_line, Failure):
                    return Failure(f"reading {path}: line {number}: {read_line.failure()}; a capture has one observation a line")
                observations.append(read_line.unwrap())
    except OSError as error:
        return Failure(f"reading {path}: {error.strerror}; give a capture that can be read")
    if not observations:
        return Failure(f"reading {path}: it is empty; give a capture with at least one observation")
    return Success(tuple(sorted(observations, key=lambda observation: observation.captured_at)))


def _observation(line: bytes) -> Result[Observation, str]:
    try:
        observation = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(one_line(str(error)))
    has_status = bool(bytes(observation.status))
    if has_status == (observation.fault is not None):
        return Failure("it has not one of status and fault")
    if has_status:
        status = decode(bytes(observation.status))
        if isinstance(status, Failure):
            return Failure(status.failure().detail)
    return Success(observation)
