"""Tests of the report's pure scripts, `data.js` and `view.js`. They run in node."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.resources import files
from typing import Any

import pytest

from support.required import program
from tsfc.core.evaluation.timeline import OBSERVATION_STATUSES, PATHS, REASONS
from tsfc.offline.report.drawing import SHIFT

PAGE = files("tsfc.offline.report") / "page"
DIRECT, DERP = PATHS.index("direct"), PATHS.index("derp")
WAITING, RESTART = REASONS.index("waiting"), REASONS.index("restart")
TIMELINE: dict[str, Any] = {
    "from": 1000,
    "to": 2000,
    "resolution": 1,
    "shift": SHIFT,
    "paths": PATHS,
    "reasons": REASONS,
    "observation_statuses": OBSERVATION_STATUSES,
    "texts": ["", "Connection refused"],
    "node": {"starts": [0, 500], "values": [0, OBSERVATION_STATUSES.index("fault") * SHIFT + 1]},
    "peers": [
        # nas: on relay at 1300, restart at 1600
        {"name": "nas", "starts": [0, 300, 300], "values": [0, DERP * SHIFT + WAITING, RESTART]},
        {"name": "rpi3", "starts": [0, 700], "values": [DIRECT * SHIFT, DERP * SHIFT]},
    ],
    "counters": [],
}
IDLE, OFFLINE = PATHS.index("idle"), PATHS.index("offline")
CALM: dict[str, Any] = {
    **TIMELINE,
    "peers": [
        TIMELINE["peers"][0],
        *(
            {"name": f"calm-{number}", "starts": [number, 300], "values": values}
            for number, values in enumerate(
                [
                    [DIRECT * SHIFT, IDLE * SHIFT],
                    [DIRECT * SHIFT, 0],
                    [DIRECT * SHIFT, OFFLINE * SHIFT],
                    [DIRECT * SHIFT, DIRECT * SHIFT + 1],
                ]
            )
        ),
    ],
}
"One peer that was on relay, and four that were not. Each of them begins a second later."
SETUP = f"""
const many = decoded({json.dumps(CALM)});
const names = (view) => view.lanes.map(({{ name }}) => name);
const data = decoded({json.dumps(TIMELINE)});
const {{ limits, node, peers }} = data;
const [nas, rpi3] = peers;
const all = whole(data);
const range = (view) => [view.from, view.to];
const cursor = (view) => view.cursor && [view.cursor.lane.name, view.cursor.at];
"""


def _evaluated(expression: str) -> Any:
    """Return the value of a JavaScript expression that uses the scripts."""
    scripts = [(PAGE / name).read_text("utf-8") for name in ("data.js", "view.js")]
    result = f"process.stdout.write(JSON.stringify({expression}));"
    node = subprocess.run(
        [program("node", "nodejs"), "--use_strict", "-"],
        input="\n".join([*scripts, SETUP, result]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (node.returncode, node.stderr) == (0, "")
    return json.loads(node.stdout)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param("1200, 1400", [1200, 1400], id="inside"),
        pytest.param("900, 1100", [1000, 1200], id="before-the-start"),
        pytest.param("1900, 2100", [1800, 2000], id="after-the-end"),
        pytest.param("0, 9000", [1000, 2000], id="everything"),
        pytest.param("1500, 1501", [1500, 1560], id="a-minute-at-least"),
    ],
)
def test_zoom_stays_within_the_limits(arguments: str, expected: list[int]) -> None:
    assert _evaluated(f"range(zoomed(all, limits, {arguments}))") == expected


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param("all", [1250, 1750], id="middle"),
        pytest.param("selected(all, limits, nas, 1)", [1150, 1650], id="cursor"),
    ],
)
def test_scaling_keeps_the_center_in_place(view: str, expected: list[int]) -> None:
    assert _evaluated(f"range(scaled({view}, limits, 0.5))") == expected


@pytest.mark.parametrize(
    ("view", "move", "expected"),
    [
        pytest.param("all", "1, 0", ["nas", 0], id="the-first-move-selects-the-first-lane"),
        pytest.param("selected(all, limits, nas, 0)", "0, 1", ["nas", 1], id="next-segment"),
        pytest.param("selected(all, limits, nas, 2)", "0, 1", ["nas", 2], id="last-segment"),
        pytest.param("selected(all, limits, nas, 0)", "0, -1", ["nas", 0], id="first-segment"),
        pytest.param("selected(all, limits, nas, 1)", "1, 0", ["rpi3", 0], id="next-lane"),
        pytest.param("selected(all, limits, nas, 1)", "-1, 0", ["nas", 1], id="first-lane"),
        pytest.param("selected(all, limits, rpi3, 1)", "1, 0", ["rpi3", 1], id="last-lane"),
        pytest.param(
            "filtered(selected(all, limits, nas, 1), data, 'rpi')",
            "1, 0",
            ["rpi3", 0],
            id="a-cursor-on-a-hidden-lane-is-dropped",
        ),
        pytest.param("filtered(all, data, 'x')", "1, 0", None, id="no-lanes"),
    ],
)
def test_moves_end_at_the_edges(view: str, move: str, expected: list[object] | None) -> None:
    assert _evaluated(f"cursor(moved({view}, limits, {move}))") == expected


def test_a_move_out_of_view_brings_the_segment_into_view() -> None:
    view = "selected(zoomed(all, limits, 1000, 1200), limits, nas, 0)"
    assert _evaluated(f"range(moved({view}, limits, 0, 1))") == [1200, 1400]


def test_a_view_is_never_changed_in_place() -> None:
    changes = (
        "zoomed(frozen, limits, 1200, 1400), scaled(frozen, limits, 0.5),"
        "moved(frozen, limits, 0, 1), filtered(frozen, data, 'n'), toggled(frozen, many)"
    )
    view = _evaluated(f"((frozen) => ({changes}, range(frozen)))(Object.freeze(all))")
    assert view == [1000, 2000]


def test_time_and_position_are_inverse() -> None:
    assert _evaluated("timeAt(all, 1202, xAt(all, 1202, 1300))") == pytest.approx(1300)


@pytest.mark.parametrize(
    ("start", "seconds", "expected"),
    [
        pytest.param(0, 1, ["1970-01-01", "00:00:01"], id="a-second"),
        pytest.param(1000, 18, ["00:16:40", "00:16:45", "00:16:50", "00:16:55"], id="seconds"),
        pytest.param(1000, 190, ["00:17", "00:18", "00:19"], id="minutes"),
        pytest.param(82800, 14000, ["23:00", "1970-01-02", "01:00", "02:00"], id="over-midnight"),
        pytest.param(0, 220000, ["1970-01-01", "1970-01-02", "1970-01-03"], id="days"),
    ],
)
def test_the_axis_has_ticks_at_round_times(start: int, seconds: int, expected: list[str]) -> None:
    view = f"{{ ...all, from: {start}, to: {start + seconds} }}"
    assert _evaluated(f"ticks({view}, 600).map(({{ text }}) => text)") == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        pytest.param(20, [["00:16:55", False], ["", True]], id="no-room"),
        pytest.param(2, [["00:16:41", False], ["00:16:42", True]], id="room"),
    ],
)
def test_the_text_of_the_last_tick_covers_no_other(
    seconds: int, expected: list[list[object]]
) -> None:
    view = f"{{ ...all, from: 1000, to: {1000 + seconds} }}"
    found = _evaluated(f"ticks({view}, 600).map(({{ text, isLeft }}) => [text, isLeft])")
    assert found[-2:] == expected


def test_neighbors_of_one_path_are_one_bar() -> None:
    """A seam between them would look like a change."""
    lane = "{ starts: [1000, 1200, 1500], kinds: [1, 1, 2], details: [0, 1, 0], end: 2000 }"
    assert _evaluated(f"bars(all, {lane}, 190 + 12 + 1000)") == [
        {"x": 190, "width": 500, "kind": 1},
        {"x": 690, "width": 500, "kind": 2},
    ]


def test_segments_below_a_pixel_become_one_bar_of_the_worst_kind() -> None:
    width = 7 + 12 + 1  # one pixel for all 1000 seconds
    bars = _evaluated(f"bars(all, rpi3, {width})")
    assert bars == [{"x": 7, "width": 1, "kind": DERP}]


@pytest.mark.parametrize(
    ("lane", "at", "expected"),
    [
        pytest.param(
            "nas",
            1,
            "nas: relay (DERP)\n"
            "watchdog: on relay, waiting for the threshold\n"
            "1970-01-01 00:21:40Z to 1970-01-01 00:26:40Z, 5 min",
            id="peer",
        ),
        pytest.param(
            "node",
            1,
            "this node: fault: Connection refused\n"
            "1970-01-01 00:25:00Z to 1970-01-01 00:33:20Z, 8 min 20 s",
            id="node",
        ),
    ],
)
def test_a_segment_says_what_why_and_when(lane: str, at: int, expected: str) -> None:
    assert _evaluated(f"segmentText(data, {lane}, {at})") == expected


def test_restarts_are_found_among_the_reasons() -> None:
    assert _evaluated("data.restarts") == [1600]


def test_each_path_reason_and_status_has_a_text() -> None:
    names = "[Object.keys(PATHS), Object.keys(REASONS), Object.keys(OBSERVATION_STATUSES)]"
    assert list(map(set, _evaluated(names))) == [
        set(PATHS),
        set(REASONS) - {None},
        set(OBSERVATION_STATUSES),
    ]


LATER = {**TIMELINE, "from": 1100, "to": 2100}
"The next state of the timeline: an earlier part is forgotten, and time went on."


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param("all", [1100, 2100], id="all-stays-all"),
        pytest.param("zoomed(all, limits, 1700, 2000)", [1800, 2100], id="the-end-stays-the-end"),
        pytest.param("zoomed(all, limits, 1300, 1400)", [1300, 1400], id="elsewhere"),
        pytest.param("zoomed(all, limits, 1000, 1100)", [1100, 1200], id="forgotten"),
    ],
)
def test_a_view_follows_the_data(view: str, expected: list[int]) -> None:
    later = f"decoded({json.dumps(LATER)})"
    assert _evaluated(f"range(followed({view}, data, {later}))") == expected


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        pytest.param("null", None, id="none"),
        # Starts are differences: all of them are 100 seconds later now.
        pytest.param("{ lane: nas, at: 2 }", ["nas", 1], id="same-time"),
        pytest.param("{ lane: nas, at: 0 }", ["nas", 0], id="forgotten-segment"),
        pytest.param("{ lane: { name: 'gone', starts: [1] }, at: 0 }", None, id="forgotten-peer"),
    ],
)
def test_the_cursor_stays_on_its_peer(cursor: str, expected: list[object] | None) -> None:
    later = f"decoded({json.dumps(LATER)})"
    view = f"{{ ...all, cursor: {cursor} }}"
    assert _evaluated(f"cursor(followed({view}, data, {later}))") == expected


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        pytest.param([20, 20], [[190, 1], [210, 1], [230, 1]], id="with-room"),
        pytest.param([20, 6], [[190, 1], [210, 2]], id="two-are-one"),
        pytest.param([6, 6, 6, 6], [[190, 4], [214, 1]], id="a-number-takes-room"),
        pytest.param([1] * 12, [[190, 13]], id="many"),
    ],
)
def test_markers_that_would_touch_are_one_with_their_number(
    gaps: list[int], expected: list[list[int]]
) -> None:
    """A second is a pixel. All markers are drawn or counted."""
    starts = [1000]
    for gap in gaps:
        starts.append(starts[-1] + gap)
    lane = json.dumps(
        {"starts": starts, "kinds": [0] * len(starts), "details": [1] * len(starts), "end": 2000}
    )
    found = f"markers(all, {lane}, 190 + 12 + 1000, (rank) => rank > 0)"
    assert _evaluated(f"{found}.map(({{ x, count }}) => [x, count])") == expected


def test_a_cluster_of_markers_shows_the_highest_rank() -> None:
    lane = "{ starts: [1000, 1001, 1002], kinds: [0, 0, 0], details: [1, 9, 3], end: 2000 }"
    found = _evaluated(f"markers(all, {lane}, 1202, (rank) => rank !== 3)")
    assert found == [{"x": 190, "rank": 9, "count": 2}]


MEMBERS = [f"calm-{number}" for number in range(4)]


def test_peers_that_were_never_on_relay_share_a_lane() -> None:
    assert _evaluated("names(whole(many))") == ["nas", "4 peers never on relay"]
    assert _evaluated("names(toggled(whole(many), many))") == [
        *("nas", "4 peers never on relay"),
        *MEMBERS,
    ]
    assert _evaluated("names(toggled(toggled(whole(many), many), many)).length") == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param("{ starts: [0], values: [DIRECT] }", "3 peers always direct", id="direct"),
        pytest.param("{ starts: [0, 9], values: [DIRECT, 0] }", "3 peers always direct", id="gone"),
        pytest.param("{ starts: [0], values: [IDLE] }", "3 peers never on relay", id="idle"),
        pytest.param("{ starts: [0], values: [DERP] }", None, id="relay"),
        pytest.param("{ starts: [0], values: [PEER_RELAY] }", None, id="peer-relay"),
        pytest.param("{ starts: [0], values: [NONE] }", None, id="no-path"),
        pytest.param("{ starts: [0], values: [DIRECT + RECOVERED] }", None, id="marker"),
    ],
)
def test_only_peers_without_relay_and_marker_share_a_lane(
    change: str, expected: str | None
) -> None:
    """Nothing is hidden that the page would have marked, and two peers keep their lanes."""
    values = {path.upper(): PATHS.index(path) * SHIFT for path in PATHS}
    values["RECOVERED"] = REASONS.index("recovered")
    for name, value in values.items():
        change = re.sub(rf"\b{name}\b", str(value), change)
    peer = f"{{ name: 'x', starts: [0], values: [{values['DIRECT']}] }}"
    raw = f"{{ ...{json.dumps(TIMELINE)}, peers: [{peer}, {peer}, {{ name: 'y', ...{change} }}] }}"
    assert _evaluated(f"(decoded({raw}).calm || {{ name: null }}).name") == expected


def test_the_shared_lane_shows_what_most_of_its_peers_have() -> None:
    """Of two paths that equally many have, it shows the worse."""
    found = _evaluated("many.calm.starts.map((start, at) => [start, many.calm.kinds[at]])")
    assert found[0] == [1000, DIRECT]
    assert found[-2:] == [[1301, DIRECT], [1302, OFFLINE]]
    assert _evaluated("segmentText(many, many.calm, 3)").splitlines()[:2] == [
        "4 peers never on relay",
        "4 direct",
    ]
    assert _evaluated("segmentText(many, many.calm, many.calm.starts.length - 1)") == (
        "4 peers never on relay\n"
        "1 not seen, 1 direct, 1 idle, 1 offline\n"
        "1970-01-01 00:21:42Z to 1970-01-01 00:33:20Z, 11 min 38 s"
    )


def test_the_filter_finds_peers_of_the_shared_lane() -> None:
    assert _evaluated("names(filtered(whole(many), many, ' CALM-2'))") == ["calm-2"]
    assert _evaluated("names(filtered(filtered(whole(many), many, 'a'), many, ''))") == [
        "nas",
        "4 peers never on relay",
    ]


def test_a_cursor_on_a_peer_of_the_shared_lane_stays_on_that_lane_if_it_closes() -> None:
    opened = "selected(toggled(whole(many), many), limits, many.calm.members[0], 1)"
    assert _evaluated(f"cursor(toggled({opened}, many))") == ["4 peers never on relay", 4]


def test_the_shared_lane_stays_open_and_selected_while_the_data_goes_on() -> None:
    fewer = {**CALM, "to": 2100, "peers": CALM["peers"][:4]}
    view = "selected(toggled(whole(many), many), limits, many.calm, 4)"
    after = f"followed({view}, many, decoded({json.dumps(fewer)}))"
    assert _evaluated(f"names({after})") == ["nas", "3 peers never on relay", *MEMBERS[:3]]
    assert _evaluated(f"cursor({after})")[0] == "3 peers never on relay"
    few = {**CALM, "peers": CALM["peers"][:2]}
    after = f"followed({view}, many, decoded({json.dumps(few)}))"
    assert _evaluated(f"[names({after}), cursor({after})]") == [["nas", "calm-0"], None]
