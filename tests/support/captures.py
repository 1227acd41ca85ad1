"""Made-up captures."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from support.statuses import PATHS, peer, status

FIXTURES = Path(__file__).parent.parent / "fixtures"
TIMELINE = FIXTURES / "timeline.ndjson"
START = 1_800_000_000


def seen(at: float, *peers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return an observation of a status with these peers."""
    return {"captured_at": at, "status": status(*peers, **fields)}


def fault(at: float, detail: str = "asking tailscaled: Connection refused") -> dict[str, Any]:
    """Return an observation of a fault."""
    return {"captured_at": at, "fault": detail}


def text(observations: Iterable[dict[str, Any]]) -> str:
    """Return a capture as NDJSON."""
    return "".join(json.dumps(observation) + "\n" for observation in observations)


def hectic(seed: int, length: int = 60) -> list[dict[str, Any]]:
    """Return a capture with everything that can happen.

    That is every path, faults, other states of tailscaled, invalid statuses and a clock
    that goes back or stands still.
    """
    chance = random.Random(f"hectic/{seed}")  # noqa: S311 - reproducible
    paths = dict.fromkeys(("nas", "rpi3", "phone", "laptop"), "direct")
    observations: list[dict[str, Any]] = []
    at = START
    for _ in range(length):
        at += chance.choice((60, 60, 60, 60, 61, 0, -30, 200))
        for name in paths:
            if chance.random() < 0.15:
                paths[name] = chance.choice(list(PATHS))
        peers = [peer(name, path) for name, path in paths.items() if chance.random() > 0.03]
        match chance.randrange(20):
            case 0:
                observations.append({"captured_at": at, "status": {"BackendState": 5}})
            case 1:
                observations.append(
                    seen(at, *peers, BackendState=chance.choice(("Stopped", "Starting", "NoState")))
                )
            case 2:
                observations.append({"captured_at": at + 0.75, "status": {"Peer": None}})
            case _:
                observations.append(
                    seen(at, *peers, Version=chance.choice(("1.78.3", "1.102.3-t53a0d659a")))
                )
    return observations
