"""A replay prints and counts what oneshot runs print and count, to the byte."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.captures import START, TIMELINE, fault, hectic, seen, text
from support.processes import Completed, Forked, ended, error_lines, run, series, started
from support.programs import calls, program
from support.statuses import peer

POLICY = (
    "--max-relay-seconds",
    "100",
    "--cooldown-seconds",
    "150",
    "--exclude-peer",
    "delta",
    "--exclude-peer",
    "nas",
)
GUARDED = ("--policy", "guarded", "--max-relay-seconds", "100", "--cooldown-seconds", "300")
GUARDED_WORDS = ("NEVER-DIRECT", "PATIENT", "OUTCOME", "RESTART", "COOLDOWN")
KEYS = {
    "observations",
    "faults",
    "restarts",
    "detections",
    "recoveries",
    "cooldowns",
    "relay_seconds",
    "lines",
    "peers",
}
WARNING = "tsfc watchdog: "


def _capture(box: Path, observations: list[dict[str, Any]], name: str = "c.ndjson") -> str:
    (box / name).write_text(text(observations))
    return str(box / name)


def _json(*arguments: str) -> dict[str, Any]:
    ran = run("replay", *arguments, "--format", "json")
    assert (ran.status, ran.stderr) == (0, "")
    replayed: dict[str, Any] = json.loads(ran.stdout)
    return replayed


def _stuck(name: str = "nas", *, runs: int = 25, every: int = 60) -> list[dict[str, Any]]:
    return [
        seen(START + every * number, peer(name, "derp"), peer("rpi3")) for number in range(runs)
    ]


# The oneshots


def _oneshots(
    forks: Forked,
    box: Path,
    observations: list[dict[str, Any]],
    policy: tuple[str, ...],
) -> tuple[list[str], list[str], str]:
    """Run the watchdog once per observation.

    Return all lines on both outputs, with their times, and the metrics of the last run.
    """
    programs = box / "bin"
    programs.mkdir()
    program(programs, "systemctl")
    lines: list[str] = []
    warnings: list[str] = []
    for observation in observations:
        at = observation["captured_at"]
        (box / "status.json").write_text(json.dumps(observation["status"]))
        paths = (
            "--status-file",
            f"{box}/status.json",
            "--state-dir",
            f"{box}/state",
            "--metrics-path",
            f"{box}/oneshot.prom",
        )
        ran = forks.run("watchdog", "--now", str(at), *paths, *policy, programs=programs)
        lines += [f"{int(at)} {line}" for line in ran.stdout.splitlines()]
        warnings += [f"{int(at)} {line}" for line in ran.stderr.splitlines()]
    assert len(calls(programs, "systemctl")) == sum(" RESTART: " in line for line in lines)
    return lines, warnings, (box / "oneshot.prom").read_text()


@pytest.mark.parametrize(
    ("which", "policy"),
    [
        *((which, POLICY) for which in ("recorded", *range(6))),
        *((which, GUARDED) for which in ("recorded", *range(3))),
    ],
)
def test_a_replay_equals_one_oneshot_run_per_observation(
    forks: Forked, box: Path, which: str | int, policy: tuple[str, ...]
) -> None:
    """Lines, warnings and metrics are equal, for a real capture and for hectic ones."""
    observations = (
        [json.loads(line) for line in TIMELINE.read_text().splitlines()]
        if isinstance(which, str)
        else hectic(which)
    )
    oneshot_lines, oneshot_warnings, metrics = _oneshots(forks, box, observations, policy)
    replayed = _json(_capture(box, observations), *policy, "--metrics-path", f"{box}/replay.prom")
    lines = [f"{entry['at']} {entry['line']}" for entry in replayed["lines"]]
    assert [line for line in lines if WARNING not in line] == oneshot_lines
    assert [line for line in lines if WARNING in line] == oneshot_warnings
    assert (box / "replay.prom").read_text() == metrics
    assert replayed["restarts"] == sum(" RESTART: " in line for line in oneshot_lines)
    assert replayed["cooldowns"] == sum(" COOLDOWN: " in line for line in oneshot_lines)
    assert replayed["detections"] == sum(" DETECTED: " in line for line in oneshot_lines)


def test_the_hectic_captures_cause_every_kind_of_line() -> None:
    """Otherwise the test above would prove less than its name claims."""
    lines = ""
    for seed in range(6):
        ran = run("replay", "-", *POLICY, stdin=text(hectic(seed)).encode())
        lines += ran.stdout
    assert all(
        f"{word}: " in lines
        for word in (
            "DETECTED",
            "WAITING",
            "RESTART",
            "COOLDOWN",
            "RECOVERED",
            "EXCLUDED",
            "watchdog",
        )
    )


def test_the_hectic_captures_cause_the_lines_of_guarded() -> None:
    lines = ""
    for seed in range(3):
        lines += run("replay", "-", *GUARDED, stdin=text(hectic(seed)).encode()).stdout
    assert [word for word in GUARDED_WORDS if f"{word}: " not in lines] == []


# Counts


def test_the_json_has_the_documented_keys(box: Path) -> None:
    replayed = _json(_capture(box, _stuck()))
    assert replayed.keys() >= KEYS
    assert set(replayed["peers"]["nas"]) == {
        "relay_seconds",
        "episodes",
        "longest_seconds",
        "restarts_caused",
    }


def test_a_stuck_peer_causes_a_restart_at_the_threshold_and_after_each_cooldown(box: Path) -> None:
    """25 runs, one a minute: detected at 0 s, restarts at 660 s and 1260 s."""
    replayed = _json(_capture(box, _stuck()))
    assert {
        key: replayed[key]
        for key in (
            "observations",
            "faults",
            "gaps",
            "restarts",
            "detections",
            "recoveries",
            "cooldowns",
        )
    } == {
        "observations": 25,
        "faults": 0,
        "gaps": 0,
        "restarts": 2,
        "detections": 1,
        "recoveries": 0,
        "cooldowns": 9 + 3,
    }
    assert replayed["peers"] == {
        "nas": {
            "relay_seconds": 1440,
            "episodes": 1,
            "longest_seconds": 1440,
            "restarts_caused": 2,
        },
        "rpi3": {"relay_seconds": 0, "episodes": 0, "longest_seconds": 0, "restarts_caused": 0},
    }
    assert replayed["direct_seconds"] == 1440
    assert [line["at"] - START for line in replayed["lines"] if "RESTART" in line["line"]] == [
        660,
        1260,
    ]


def test_an_episode_ends_with_the_run_that_sees_its_end(box: Path) -> None:
    """Direct again, offline and gone end an episode; a fault does not."""
    observations = [
        seen(START, peer("a", "derp"), peer("b", "derp"), peer("c", "derp")),
        fault(START + 60),
        seen(START + 120, peer("a", "direct"), peer("b", "offline")),
        seen(START + 180, peer("a", "derp")),
        seen(START + 200, peer("a", "derp")),
    ]
    replayed = _json(_capture(box, observations))
    assert {
        name: (one["relay_seconds"], one["episodes"], one["longest_seconds"])
        for name, one in replayed["peers"].items()
    } == {
        "a": (140, 2, 120),
        "b": (120, 1, 120),
        "c": (120, 1, 120),
    }
    assert (replayed["faults"], replayed["relay_seconds"], replayed["longest_seconds"]) == (
        1,
        380,
        120,
    )


def test_intervals_far_longer_than_the_usual_are_gaps(box: Path) -> None:
    times = [0, 60, 120, 180, 400, 460, 5000, 5060, 5120]
    assert _json(_capture(box, [seen(START + at, peer("a")) for at in times]))["gaps"] == 2


def test_a_clock_step_causes_no_restart_if_the_capture_has_the_boot_clock(box: Path) -> None:
    """A Raspberry Pi sets its clock four months forward: that is no time on relay."""
    boot = {"id": "b", "seconds": 100}
    observations = [
        seen(START + at, peer("a", "derp")) | {"boot": boot | {"seconds": 100 + at % 10**6}}
        for at in (0, 60, 120 + 10**7, 180 + 10**7)
    ]
    replayed = _json(_capture(box, observations))
    assert (replayed["restarts"], replayed["peers"]["a"]["relay_seconds"]) == (0, 180)
    without = _json(
        _capture(
            box,
            [
                {key: value for key, value in observation.items() if key != "boot"}
                for observation in observations
            ],
        )
    )
    assert without["restarts"] == 1


# Windows, formats, inputs


@pytest.mark.parametrize(
    ("since", "until"),
    [(str(START + 120), str(START + 600)), ("2027-01-15T08:02:00Z", "2027-01-15T09:10:00+01:00")],
)
def test_from_is_inclusive_and_to_is_exclusive(box: Path, since: str, until: str) -> None:
    replayed = _json(_capture(box, _stuck()), "--from", since, "--to", until)
    assert replayed["observations"] == 8
    assert [line["at"] - START for line in replayed["lines"]] == list(range(120, 600, 60))
    assert "DETECTED" in replayed["lines"][0]["line"]


def test_text_has_lines_with_their_times_then_the_summary(box: Path) -> None:
    ran = run("replay", _capture(box, _stuck(runs=13)))
    assert (ran.status, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0] == "2027-01-15T08:00:00Z DETECTED: nas transitioned to relay"
    assert lines[11] == "2027-01-15T08:11:00Z RESTART: nas on relay for 660s, restarting tailscaled"
    assert lines[13] == ""
    assert (
        lines[14]
        == "13 observations (2027-01-15T08:00:00Z to 2027-01-15T08:12:00Z, 720 s), 0 faults, 0 gaps"
    )
    assert lines[15] == "1 restarts, 1 detections, 0 recoveries, 1 cooldowns"
    assert lines[-1].startswith(
        "note: the first restart that it would have made was at 2027-01-15T08:11:00Z: "
    )


def test_several_captures_are_replayed_separately_and_printed_in_order(
    box: Path,
) -> None:
    """Several processes print what one process would print."""
    captures = [_capture(box, hectic(seed), f"{seed}.ndjson") for seed in range(5)]
    for order in (captures, captures[::-1]):
        together = run("replay", *order, *POLICY)
        alone = [run("replay", capture, *POLICY).stdout for capture in order]
        assert together.status == 0
        assert together.stdout == "".join(
            f"== {capture}\n{output}" for capture, output in zip(order, alone, strict=True)
        )
    objects = [
        json.loads(line)
        for line in run("replay", *captures, "--format", "json").stdout.splitlines()
    ]
    assert [one["capture"] for one in objects] == captures


@pytest.mark.parametrize(
    "options",
    [(), ("--format=json",), ("--compare=cooldown-seconds=60,120",)],
    ids=str,
)
def test_a_capture_whose_name_is_not_text_is_replayed(box: Path, options: tuple[str, ...]) -> None:
    capture = str(box / os.fsdecode(b"a\xff\n\x1b[31m.ndjson"))
    Path(capture).write_text(text([seen(START, peer("a", "derp"))]))
    ran = run("replay", capture, capture, *options)
    assert (ran.status, ran.stderr) == (0, "")
    assert "\x1b" not in ran.stdout


def test_standard_input_is_a_capture(box: Path) -> None:
    ran = run("replay", "-", stdin=text(_stuck()).encode())
    assert ran.stdout == run("replay", _capture(box, _stuck())).stdout


def test_damaged_lines_are_skipped_with_a_warning(box: Path) -> None:
    """The other lines are replayed as if the damaged ones were not there."""
    path = Path(_capture(box, _stuck()))
    whole = run("replay", str(path))
    lines = path.read_text().splitlines(keepends=True)
    (box / "torn").write_text(lines[0] + "garbage\n" + "".join(lines[1:]) + lines[0][:200])
    torn = run("replay", f"{box}/torn")
    assert (torn.status, torn.stdout) == (0, whole.stdout)
    errors = error_lines("replay", torn)
    assert len(errors) == 2
    assert "line 2" in errors[0]
    assert "torn" in errors[1]


def test_very_many_damaged_lines_are_summed_up(box: Path) -> None:
    (box / "c").write_text("garbage\n" * 1000 + text(_stuck()))
    errors = error_lines("replay", run("replay", f"{box}/c"))
    assert len(errors) == 21
    assert errors[-1] == f"reading {box}/c: 980 more errors like these"


@pytest.mark.parametrize("content", [None, "", "\n", "garbage\n"])
def test_a_capture_without_an_observation_is_an_error(box: Path, content: str | None) -> None:
    if content is not None:
        (box / "c").write_text(content)
    ran = run("replay", f"{box}/c")
    assert ran.status == 1
    assert ran.stdout == ""
    last = error_lines("replay", ran)[-1]
    if content is None:
        assert last.startswith(f"reading {box}/c: No such file or directory; ")
    elif content.strip():
        assert last.startswith(f"replaying {box}/c: no observations; ")
    else:
        assert last == f"reading {box}/c: it is empty; give a capture of `tsfc capture`"


def test_a_full_disk_behind_standard_output_is_an_error(box: Path) -> None:
    ran = run("replay", _capture(box, _stuck()), around='exec "$@" > /dev/full')
    assert (ran.status, ran.stderr) == (
        1,
        "tsfc: writing to standard output: No space left on device; check disk space\n",
    )


# Comparisons


def test_every_combination_of_policies_is_one_row_and_a_note_names_the_limits(box: Path) -> None:
    capture = _capture(box, _stuck(runs=61))
    ran = run(
        "replay",
        capture,
        "--compare",
        "max-relay-seconds=300,600,1200",
        "--compare",
        "cooldown-seconds=600,1800",
    )
    assert ran.status == 0
    header, *rows, note = ran.stdout.splitlines()
    assert header.split()[:2] == ["policy", "restarts"]
    assert [tuple(row.split()[1:4]) for row in rows] == [
        (f"max-relay-seconds={limit}", f"cooldown-seconds={cooldown}", str(restarts))
        for (limit, cooldown), restarts in {
            (300, 600): 6,
            (300, 1800): 2,
            (600, 600): 5,
            (600, 1800): 2,
            (1200, 600): 4,
            (1200, 1800): 2,
        }.items()
    ]
    assert note.startswith(
        "note: the first restart that it would have made was at 2027-01-15T08:06:00Z: "
    )
    for limit in (300, 600, 1200):
        assert f" {_json(capture, '--max-relay-seconds', str(limit))['restarts']} " in next(
            row for row in rows if f" max-relay-seconds={limit} " in row
        )


def test_a_comparison_as_json_has_one_object_per_policy(box: Path) -> None:
    compared = _json(_capture(box, _stuck()), "--compare", "exclude-peer=,nas")
    assert [(row["policy"]["exclude_peers"], row["restarts"]) for row in compared["compare"]] == [
        ([], 2),
        (["nas"], 0),
    ]


@pytest.mark.parametrize(
    "comparison",
    [
        "max-relay-seconds",
        "max-relay-seconds=",
        "max-relay-seconds=1,x",
        "max-relay-seconds=-1",
        "nothing=1",
        "unit=a",
    ],
)
def test_a_malformed_comparison_is_a_usage_error(box: Path, comparison: str) -> None:
    ran = run("replay", _capture(box, _stuck()), "--compare", comparison)
    assert (ran.status, ran.stdout) == (2, "")
    assert len(error_lines("replay", ran)) == 1


def test_metrics_need_a_single_capture(box: Path) -> None:
    capture = _capture(box, _stuck())
    ran = run("replay", capture, capture, "--metrics-path", f"{box}/m.prom")
    assert (ran.status, ran.stdout) == (2, "")
    assert (
        series(
            run("replay", capture, "--metrics-path", "-")
            .stdout.partition("# HELP")[2]
            .join(("# HELP", ""))
        )["tailscale_watchdog_restarts_total"]
        == 2
    )


# Memory, and ending early


def test_memory_does_not_grow_with_the_length(box: Path) -> None:
    """A capture of 1 GB needs less than 100 MiB."""
    line = text(
        [
            seen(
                START,
                *(
                    peer(f"host{number}", "derp" if number % 10 == 0 else "direct")
                    for number in range(300)
                ),
            )
        ]
    ).encode()
    command = [
        sys.executable,
        "-m",
        "tsfc",
        "replay",
        "-",
        "--max-relay-seconds",
        "999999999",
        "--format",
        "json",
    ]
    out = box / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file)
        assert process.stdin
        number = 10**9 // len(line)
        for _ in range(number):
            process.stdin.write(line)
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        process.stdin.close()
        assert process.wait() == 0
    assert peak
    assert int(peak[1]) < 100 * 1024
    assert json.loads(out.read_text())["observations"] == number


def test_a_closed_pipe_ends_a_replay_without_an_error(box: Path) -> None:
    """`tsfc replay … | head`."""
    capture = _capture(box, _stuck(runs=3000))
    ran: Completed = run("replay", capture, around='"$@" | /usr/bin/head -n 1')
    assert ran.stdout.startswith("2027-")
    assert ran.stderr == ""


@pytest.mark.parametrize("captures", [1, 2])
def test_a_signal_ends_a_replay_and_its_processes(box: Path, captures: int) -> None:
    """The captures never end. Two of them are replayed by two processes."""
    fifos = [box / f"f{number}" for number in range(captures)]
    for fifo in fifos:
        os.mkfifo(fifo)
    with started("replay", *map(str, fifos)) as process:
        writers = [os.open(fifo, os.O_WRONLY) for fifo in fifos]  # open() waits for the reader
        process.send_signal(signal.SIGTERM)
        ran = ended(process)
        for writer in writers:
            os.close(writer)
    assert ran.status == 143
    assert ran.stderr == "tsfc: ended by SIGTERM before it was done\n"
