"""A timeline as JSON, as the scripts of the page draw it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import msgspec

from tsfc.core.evaluation.timeline import OBSERVATION_STATUSES, PATHS, REASONS, Lane, Timeline
from tsfc.offline.report.document import Drawing

SHIFT = 16
"A value of a lane is `kind * SHIFT + detail` in the page: numbers keep it small."


def data(drawing: Drawing) -> bytes:
    """Return what the page draws, as JSON."""
    timeline = drawing.timeline
    first = min(
        [lane.starts[0] for lane in (timeline.node, *timeline.peers.values()) if lane.starts],
        default=0,
    )
    return msgspec.json.encode(
        {
            "from": first,
            "to": timeline.last or first,
            "resolution": timeline.resolution,
            "shift": SHIFT,
            "paths": PATHS,
            "reasons": REASONS,
            "observation_statuses": OBSERVATION_STATUSES,
            "texts": timeline.texts,
            "node": _lane(timeline.node, first, _node_numbers(timeline)),
            "peers": [
                {"name": name, **_lane(timeline.peers.get(name, Lane()), first, _PEER_NUMBERS)}
                for name in drawing.peers
            ],
            "counters": timeline.counters,
        }
    )


def for_script(json: bytes) -> str:
    """Return JSON so that it is safe inside a `script` element."""
    text = json.decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


Numbers = Mapping[tuple[str, str | None], int]
"The number in the page of each value of a lane."

_PEER_NUMBERS: Numbers = {
    (path, reason): kind * SHIFT + detail
    for kind, path in enumerate(PATHS)
    for detail, reason in enumerate(REASONS)
}


def _node_numbers(timeline: Timeline) -> Numbers:
    return {
        (status, text): kind * SHIFT + detail
        for kind, status in enumerate(OBSERVATION_STATUSES)
        for detail, text in enumerate(timeline.texts)
    }


def _lane(lane: Lane, first: int, numbers: Numbers) -> dict[str, list[int]]:
    """Return a lane for the page.

    Each start is in seconds after the previous one, and the first after `first`:
    small numbers keep the page small.
    """
    return {
        "starts": [later - earlier for earlier, later in pairwise([first, *lane.starts])],
        "values": [numbers[value] for value in lane.values],
    }
