"""`tsfc simulate`: the results of the built-in scenarios, and their reasons."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import irregular
from support.processes import error_lines, run
from tsfc.offline.simulation import scenario

SIMULATION_KEYS = {
    "daemon_down_seconds",
    "harm_seconds",
    "needless_restarts",
    "unserved_other_port_seconds",
    "unserved_relay_seconds",
    "scenario",
}


def _simulated(*arguments: str) -> dict[str, Any]:
    ran = run("simulate", *arguments, "--format", "json")
    assert (ran.status, ran.stderr) == (0, "")
    simulated: dict[str, Any] = json.loads(ran.stdout)
    return simulated


EXPECTED: dict[str, tuple[dict[str, int], str]] = {
    "healthy": ({"restarts": 0, "detections": 0, "relay_seconds": 0}, "nothing happens"),
    "permanent-relay": (
        {"restarts": 143, "needless_restarts": 143, "detections": 1},
        "at 11 minutes, then every 10: (1440 - 11) / 10",
    ),
    "restart-cures": (
        {"restarts": 14, "needless_restarts": 0, "detections": 14, "recoveries": 0},
        "every relay ends with a restart, and no peer recovers by itself",
    ),
    "restart-cures-for-a-while": (
        {"restarts": 14, "needless_restarts": 0},
        "21 hours of cycles: 10 minutes of relay, then 75 minutes direct on average",
    ),
    "restart-never-cures": (
        {"restarts": 71, "needless_restarts": 71, "recoveries": 1},
        "12 hours are 720 minutes: one at 11, then every 10; in the end it recovers",
    ),
    "far-side": (
        {"restarts": 35, "needless_restarts": 35, "recoveries": 1},
        "6 hours are 360 minutes: one at 11, then every 10; in the end it recovers",
    ),
    "two-watchdogs": (
        {"restarts": 1, "needless_restarts": 1, "detections": 1},
        "our restart fixes nothing; the restart of the other end does",
    ),
    "nat-mapping-expiry": (
        {"restarts": 0, "detections": 0},
        "a heartbeat every 3 s keeps a mapping of 30 s open",
    ),
    "nat-mapping-expiry-without-keepalive": (
        {"restarts": 143, "needless_restarts": 143},
        "nothing is sent to rpi3, so it is never direct",
    ),
    "flapping": ({"restarts": 0, "needless_restarts": 0}, "no cut is longer than 5 minutes"),
    "phone": (
        {"restarts": 0},
        "its relay timer ends when it leaves; it is direct seconds after it returns",
    ),
    "derp-outage": (
        {"restarts": 143, "needless_restarts": 143, "detections": 21},
        "as permanent-relay; the direct peer is on relay for a moment in some runs",
    ),
    "derp-refused": (
        {"restarts": 143, "needless_restarts": 143, "detections": 1},
        "as permanent-relay; the direct peer is not detected",
    ),
    "control-silent": (
        {"restarts": 9, "needless_restarts": 0, "detections": 9, "daemon_down_seconds": 1},
        "every relay ends with a restart, at the latest after the outage",
    ),
    "dead-data": ({"restarts": 0, "detections": 0}, "the path is direct all the time"),
    "restart-fails": (
        {"restarts": 1, "needless_restarts": 0, "detections": 1},
        "those of three hours fail, the next one cures nas",
    ),
    "sleeping-phone": (
        {"restarts": 234, "needless_restarts": 234},
        "one every ten minutes while the phone sleeps, after the first ten",
    ),
    "control-outage": (
        {"restarts": 1, "needless_restarts": 0},
        "it is held back until the control server is back, and then cures nas",
    ),
    "daemon-dead": (
        {"restarts": 0, "faults": 60, "daemon_down_seconds": 3600},
        "one hour, one run a minute",
    ),
    "cgnat-change": ({"restarts": 0}, "a change takes seconds"),
    "suspend": (
        {"restarts": 0, "needless_restarts": 0, "gaps": 1},
        "the relay of nas starts again after the sleep, and ends within fifteen minutes",
    ),
    "clock-step": (
        {"restarts": 0, "detections": 1, "recoveries": 1, "relay_seconds": 300},
        "the boot clock shows that no year has passed",
    ),
    "idle-fleet": (
        {"restarts": 143, "needless_restarts": 143, "detections": 20},
        "as permanent-relay: idle peers look like peers on relay, all twenty",
    ),
    "everything-relayed": (
        {"restarts": 143, "needless_restarts": 143, "detections": 10},
        "as permanent-relay, but with ten peers on relay",
    ),
    "blocked-port": (
        {"restarts": 143, "needless_restarts": 143, "detections": 2, "recoveries": 0},
        "24 hours are 1440 minutes: one at 11, then every 10; the last one gets the credit for the end",
    ),
    "stuck-nat": (
        {"restarts": 71, "needless_restarts": 71, "detections": 2, "recoveries": 0},
        "12 hours are 720 minutes: one at 11, then every 10; the last one gets the credit for the end",
    ),
    "wan-change": ({"restarts": 0, "needless_restarts": 0}, "a change takes seconds"),
    "thousand-peers": (
        {"restarts": 143},
        "the hard peers cause as many restarts as in permanent-relay",
    ),
    "mixed-month": (
        {"restarts": 3943, "needless_restarts": 3918},
        "as permanent-relay on 28 days, less the outages; 25 cured something",
    ),
    "udp-blocked-then-open": (
        {"restarts": 0, "observations": 30, "recoveries": 3},
        "bravo twice, carol once; none is on relay for more than ten minutes",
    ),
}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_each_scenario_has_the_expected_counts(name: str) -> None:
    counts, why = EXPECTED[name]
    simulated = _simulated(name)
    assert {key: simulated[key] for key in counts} == counts, why


def test_every_built_in_scenario_has_expected_counts() -> None:
    assert set(EXPECTED) == set(scenario.builtin())


@pytest.mark.parametrize(
    "name",
    [
        "flapping",
        "control-outage",
        "daemon-dead",
        "suspend",
        "clock-step",
        "phone",
        "restart-cures",
    ],
)
@pytest.mark.parametrize("form", ["ndjson", "ndjson.zst"])
def test_replaying_the_capture_of_a_simulation_gives_its_result(
    box: Path, name: str, form: str
) -> None:
    simulated = _simulated(
        name, "--days", "0.5", "--capture", f"{box}/c.{form}", "--max-relay-seconds", "120"
    )
    replayed = json.loads(
        run("replay", f"{box}/c.{form}", "--format", "json", "--max-relay-seconds", "120").stdout
    )
    left_out = SIMULATION_KEYS | {"notes", "capture"}
    assert {key: value for key, value in simulated.items() if key not in left_out} == {
        key: value for key, value in replayed.items() if key not in left_out
    }


@pytest.mark.parametrize("make", irregular.EACH_KIND)
def test_a_capture_replaces_only_a_regular_file(box: Path, make: Callable[[Path], None]) -> None:
    path = box / "c.ndjson"
    make(path)
    before = irregular.remains(box)
    ran = run("simulate", "healthy", "--capture", str(path))
    assert error_lines("simulate", ran) == [
        f"writing {path}: it is not a regular file; set --capture to a regular file"
    ]
    assert (ran.status, irregular.remains(box)) == (1, before)


def test_a_capture_leaves_the_files_next_to_it(box: Path) -> None:
    (box / "c.tmp").write_text("mine")
    assert run("simulate", "healthy", "--capture", str(box / "c")).status == 0
    assert (box / "c.tmp").read_text() == "mine"
    assert sorted(path.name for path in box.iterdir()) == ["c", "c.tmp"]


def test_the_output_depends_only_on_the_seed() -> None:
    first = run("simulate", "flapping", "--seed", "7").stdout
    assert first == run("simulate", "flapping", "--seed", "7").stdout
    assert first != run("simulate", "flapping", "--seed", "8").stdout


def test_the_text_ends_with_the_summary() -> None:
    ran = run("simulate", "permanent-relay")
    assert ran.status == 0
    assert "143 restarts, 1 detections, 0 recoveries, " in ran.stdout
    assert "needless_restarts 143, " in ran.stdout


def test_an_excluded_peer_causes_no_restart() -> None:
    assert _simulated("permanent-relay", "--exclude-peer", "hard")["restarts"] == 0


def test_distributions_are_those_of_runs_with_consecutive_seeds() -> None:
    """Each run equals a single run with its seed."""
    many = _simulated("restart-cures-for-a-while", "--runs", "5", "--seed", "3")
    (only,) = many["compare"]
    alone = [_simulated("restart-cures-for-a-while", "--seed", str(seed)) for seed in range(3, 8)]
    assert [one["restarts"] for one in only["runs"]] == [one["restarts"] for one in alone]
    ordered = sorted(one["relay_seconds"] for one in alone)
    assert only["distributions"]["relay_seconds"] == {
        "median": ordered[2],
        "p5": ordered[0],
        "p95": ordered[4],
        "worst": ordered[4],
    }
    assert only["distributions"]["direct_seconds"]["worst"] == min(
        one["direct_seconds"] for one in alone
    )


def test_policies_are_compared_with_the_same_seeds() -> None:
    ran = run(
        "simulate",
        "permanent-relay",
        "--compare",
        "max-relay-seconds=300,600",
        "--compare",
        "cooldown-seconds=600,3600",
    )
    rows = ran.stdout.splitlines()[1:]
    assert [row.split()[3] for row in rows] == ["144", "24", "143", "24"]
    assert "median" in run("simulate", "permanent-relay", "--days", "0.1", "--runs", "2").stdout


def test_every_policy_is_between_none_and_the_oracle() -> None:
    compared = _simulated("restart-cures", "--compare", "policy=none,documented,guarded,oracle")
    rows = {row["policy"]["policy"]: row["runs"][0] for row in compared["compare"]}
    unserved = [rows[name]["unserved_relay_seconds"] for name in rows]
    assert list(rows) == ["none", "documented", "guarded", "oracle"]
    assert unserved[0] > 10 * max(unserved[1:3])
    assert min(unserved[1:3]) > unserved[3] == 0
    assert [rows[name]["restarts"] for name in ("none", "oracle")] == [0, 0]


def test_a_comparison_of_remedies_shows_what_another_port_cures() -> None:
    remedies = "remedies=restart,restart+other-port"
    compared = _simulated("blocked-port", "--policy", "guarded", "--compare", remedies)
    alone, with_port = (
        row["runs"][0]["unserved_other_port_seconds"] for row in compared["compare"]
    )
    assert [row["policy"]["remedies"] for row in compared["compare"]] == [
        ["restart"],
        ["restart", "other-port"],
    ]
    assert alone > 20 * with_port > 0


def test_the_outcomes_of_remedies_are_those_that_the_policy_counts() -> None:
    simulated = _simulated("restart-cures", "--policy", "guarded")
    outcomes = {key: simulated[key] for key in simulated if key.startswith("outcome_")}
    assert outcomes == {
        "outcome_restart_helped": 14,
        "outcome_restart_no_effect": 0,
        "outcome_restart_worse": 0,
        "outcome_restart_unconfirmed": 0,
    }
    assert not any(key.startswith("outcome_") for key in _simulated("restart-cures"))


def test_the_oracle_cures_only_what_a_restart_would() -> None:
    compared = _simulated("restart-never-cures", "--compare", "policy=none,oracle")
    none, oracle = (row["runs"][0] for row in compared["compare"])
    assert none == oracle


def test_a_scenario_is_read_from_a_file_and_an_error_in_it_is_one_line(box: Path) -> None:
    (box / "s.toml").write_text('summary = "x"\nlasts = "10min"\n[[peers]]\nname = "a"\n')
    assert _simulated(f"{box}/s.toml")["observations"] == 10
    (box / "s.toml").write_text('summary = "x"\nlasts = "10min"\n[[peers]]\nname = "a"\nnat = 5\n')
    ran = run("simulate", f"{box}/s.toml")
    assert (ran.status, ran.stdout) == (1, "")
    (error,) = error_lines("simulate", ran)
    assert error == (
        f"reading the scenario {box}/s.toml: Expected `str`, got `int` - at `peers[0].nat`; "
        "see `tsfc simulate --schema`"
    )


def test_a_scenario_whose_name_is_not_text_is_simulated(box: Path) -> None:
    path = box / os.fsdecode(b"a\xff\x1b[31m.toml")
    path.write_text('summary = "x"\nlasts = "10min"\n[[peers]]\nname = "a"\n')
    ran = run("simulate", str(path), "--format=json")
    assert (ran.status, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["scenario"] == f"{box}/a\ufffd\ufffd[31m.toml"


@pytest.mark.parametrize(
    "rest",
    [
        '[[events]]\nkind = "suspend"\nat = "5min"\nlasts = "11000d"\n',
        '[watchdog]\ninterval = "11000d"\n',
    ],
    ids=["a suspend", "an interval"],
)
def test_a_simulation_ends_in_time_whatever_the_spans_in_it(box: Path, rest: str) -> None:
    """It simulated the whole span, 95 million rounds of keepalive, and hung."""
    (box / "s.toml").write_text(f'summary = "x"\nlasts = "10min"\n[[peers]]\nname = "a"\n{rest}')
    assert _simulated(f"{box}/s.toml")["observations"] < 10


def test_what_is_after_the_end_is_not_counted(box: Path) -> None:
    """The next run of the watchdog would be an hour later."""
    (box / "s.toml").write_text(
        'summary = "x"\nlasts = "10min"\n[[peers]]\nname = "a"\n[watchdog]\ninterval = "1h"\n'
        '[[events]]\nkind = "daemon-dead"\nat = "15min"\nlasts = "5min"\n'
    )
    assert _simulated(f"{box}/s.toml")["daemon_down_seconds"] == 0


def test_an_error_is_one_line_and_an_exit_status(box: Path) -> None:
    assert run("simulate").status == 2
    for name, hint in (("no-such", ""), ("flaping", "; did you mean flapping?")):
        missing = run("simulate", name)
        assert missing.status == 1
        assert error_lines("simulate", missing) == [
            (
                f"reading the scenario {name}: No such file or directory; give a TOML file, or a "
                f"built-in scenario (see `tsfc simulate --list`{hint})"
            )
        ]
    assert run("simulate", "healthy", "--runs", "2", "--capture", f"{box}/c").status == 2
    unwritable = run("simulate", "healthy", "--days", "0.01", "--capture", f"{box}/no/c")
    assert unwritable.status == 1
    assert len(error_lines("simulate", unwritable)) == 1


def test_the_list_and_the_schema_are_printed() -> None:
    listed = run("simulate", "--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(scenario.builtin())
    assert json.loads(run("simulate", "--schema").stdout) == json.loads(
        json.dumps(scenario.schema())
    )


def test_many_seeds_give_the_results_that_each_gives_alone() -> None:
    """There are so many that a block has several seeds."""
    many = _simulated("flapping", "--days", "0.1", "--runs", "130", "--seed", "5")["compare"][0][
        "runs"
    ]
    assert len(many) == 130
    for number in (0, 1, 2, 77, 129):
        alone = _simulated("flapping", "--days", "0.1", "--seed", str(5 + number))
        assert many[number] == {key: alone[key] for key in many[number]}
    assert len({run["relay_seconds"] for run in many}) > 10
