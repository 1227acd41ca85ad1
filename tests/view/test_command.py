"""`tsfc peers` and `tsfc explain`, as processes: what they show, to whom, and what they say that they could not read."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from support.captures import TIMELINE
from support.corpus import NAMES_FROM_HELL
from support.processes import (
    UNPRIVILEGED,
    Ran,
    complaints,
    ended,
    interrupt,
    run,
    started,
    wait_until,
)
from support.statuses import PATHS, encoded, peer
from tsfc.core.watchdog.track import Reason
from tsfc.view.model import quantity, span
from tsfc.view.sentences import OUTCOMES, RULES

NOW = 1_800_000_000
POLICY = ("--max-relay-seconds", "600", "--cooldown-seconds", "600")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
FIELDS: dict[str, Any] = {
    "Version": "1.102.3-t53a0d659a",
    "Health": ["Tailscale could not connect to any relay server.", "a\nb"],
}
LEGEND = ["peer", "path", "since", "handshake", "received", "sent", "watchdog"]


@pytest.fixture
def known(box: Path) -> Path:
    """The metrics of a watchdog that has run."""
    return box / "watchdog.prom"


def _watched(
    box: Path, known: Path, at: int, *peers: Mapping[str, Any], policy: tuple[str, ...] = POLICY
) -> None:
    """Has the watchdog look at these peers, at that time; `--restart-socket` leads nowhere, so a restart fails."""
    (box / "seen.json").write_bytes(encoded(*map(dict, peers)))
    where = (
        "--status-file",
        f"{box}/seen.json",
        "--state-dir",
        f"{box}/state",
        "--metrics-path",
        str(known),
        "--restart-socket",
        f"{box}/none",
    )
    assert run("watchdog", "--now", str(at), *where, *policy).status in {0, 1}


def _shown(
    box: Path,
    known: Path,
    tool: tuple[str, ...],
    *peers: Mapping[str, Any],
    now: int = NOW,
    **fields: Any,
) -> Ran:
    (box / "now.json").write_bytes(encoded(*map(dict, peers), **fields))
    return run(
        *tool,
        "--status-file",
        f"{box}/now.json",
        "--watchdog-metrics",
        str(known),
        "--now",
        str(now),
    )


def _rows(text: str) -> dict[str, list[str]]:
    """Returns the cells of each row by its peer."""
    lines = [re.split(r" {2,}", line) for line in text.splitlines()]
    head = next(number for number, cells in enumerate(lines) if cells[0] == "peer")
    return {cells[0]: cells[1:] for cells in lines[head + 1 :] if cells[0]}


def test_the_table_has_each_peer_with_trouble_on_top(box: Path, known: Path) -> None:
    policy = (*POLICY, "--exclude-peer", "excluded")
    before = [peer(name, "derp") for name in ("stuck", "waiting", "excluded", "cured")]
    _watched(box, known, NOW - 700, before[0], before[2], before[3], peer("nas"), policy=policy)
    _watched(box, known, NOW - 60, *before, peer("nas"), policy=policy)
    seen = [
        *before[:3],
        peer("cured"),
        peer("nas", LastHandshake="2027-01-15T07:59:18Z", RxBytes=1536, TxBytes=5),
        peer("new", "peer_relay"),
    ]
    ran = _shown(
        box,
        known,
        ("peers",),
        *seen,
        peer("asleep", "idle"),
        peer("phone", "offline", LastSeen="2027-01-12T08:00:00Z"),
        **FIELDS,
    )
    assert (ran.status, ran.stderr) == (0, "")
    header, *rest = ran.stdout.splitlines()
    assert (
        header
        == "self is Running, tailscaled 1.102.3: 8 peers (2 direct, 1 peer-relay, 3 derp, 1 idle, 1 offline)"
    )
    assert rest[:4] == [
        "health: Tailscale could not connect to any relay server.",
        "health: a b",
        "watchdog: last run 1m ago; last restart 1m ago, 0 in all",
        "watchdog: next restart in 9m, because of stuck",
    ]
    assert re.split(r" {2,}", rest[4]) == LEGEND
    rows = _rows(ran.stdout)
    assert list(rows) == ["stuck", "waiting", "asleep", "new", "excluded", "cured", "nas", "phone"]
    assert rows["stuck"] == ["relay fra", "11m 40s", "-", "0 B", "0 B", "cooling down, 9m left"]
    assert rows["waiting"][1:2] + rows["waiting"][-1:] == ["1m", "waiting, 1m of 10m"]
    assert rows["asleep"][0] == "idle"
    assert rows["asleep"][-1] == "just detected"
    assert rows["new"][0] == "peer-relay 192.0.2.9:7777:vni:1"
    assert rows["excluded"][-1] == "excluded"
    assert rows["nas"] == ["direct 192.0.2.7:41641", "42s", "1.5 KiB", "5 B", "direct"]
    assert rows["phone"][:1] + rows["phone"][-1:] == ["offline 3d", "not watched"]


def test_a_restart_that_comes_is_foretold(box: Path, known: Path) -> None:
    _watched(box, known, NOW - 350, peer("nas", "derp"))
    ran = _shown(box, known, ("peers",), peer("nas", "derp"))
    assert "watchdog: next restart in 4m 11s, because of nas\n" in ran.stdout
    assert _rows(ran.stdout)["nas"][-1] == "restart in 4m 11s"
    ran = _shown(box, known, ("peers",), peer("nas", "derp"), now=NOW + 300)
    assert _rows(ran.stdout)["nas"][-1] == "restart at its next run"


def test_the_json_has_its_documented_keys(box: Path, known: Path) -> None:
    _watched(box, known, NOW - 350, peer("nas", "derp"))
    ran = _shown(
        box,
        known,
        ("peers", "--format", "json"),
        peer("nas", "derp", LastHandshake="2027-01-15T07:59:18Z"),
        **FIELDS,
    )
    assert (ran.status, ran.stderr, ran.stdout.count("\n")) == (0, "", 1)
    assert json.loads(ran.stdout) == {
        "at": NOW,
        "node": {
            "name": "self",
            "state": "Running",
            "version": "1.102.3-t53a0d659a",
            "health": ["Tailscale could not connect to any relay server.", "a b"],
            "key_expiry": None,
        },
        "watchdog": {
            "last_run": NOW - 350,
            "last_success": NOW - 350,
            "last_restart": None,
            "restarts": 0,
            "max_relay_seconds": 600,
            "cooldown_seconds": 600,
            "cooldown_remaining_seconds": 0,
            "next_restart": {"in_seconds": 251, "peer": "nas"},
        },
        "peers": [
            {
                "peer": "nas",
                "path": "derp",
                "via": "fra",
                "relay_since": NOW - 350,
                "relay_seconds": 350,
                "handshake_seconds_ago": 42,
                "rx_bytes": 0,
                "tx_bytes": 0,
                "last_seen": None,
                "verdict": "waiting",
                "next": "restart in 4m 11s",
                "ping": None,
            }
        ],
        "unread": [],
    }


# What could not be read


def test_without_a_watchdog_it_says_so_and_shows_the_rest(box: Path, known: Path) -> None:
    """A path that is bad comes first all the same."""
    ran = _shown(box, known, ("peers",), peer("a"), peer("b", "derp"), peer("c", "offline"))
    assert (ran.status, ran.stderr) == (0, "")
    assert (
        f"reading {known.with_suffix('.json')}: No such file or directory; the watchdog's verdicts are unknown; run it, or give its --watchdog-metrics\n"
        in ran.stdout
    )
    assert {name: cells[-1] for name, cells in _rows(ran.stdout).items()} == {
        "b": "unknown",
        "a": "unknown",
        "c": "not watched",
    }
    explained = _shown(box, known, ("explain", "b"), peer("b", "derp"))
    assert "What the watchdog makes of it is unknown.\n" in explained.stdout
    assert str(known.with_suffix(".json")) in explained.stdout


@pytest.mark.parametrize(
    "text",
    [b"", b"x 1\n", b"\xff", b"x y z\n", b"tailscale_watchdog_last_run_timestamp_seconds NaN\n"],
)
def test_what_is_not_the_watchdogs_snapshot_is_one_line(
    box: Path, known: Path, text: bytes
) -> None:
    snapshot = known.with_suffix(".json")
    snapshot.write_bytes(text)
    ran = _shown(box, known, ("peers",), peer("a"))
    assert (ran.status, ran.stderr) == (0, "")
    assert (
        len([line for line in ran.stdout.splitlines() if line.startswith(f"reading {snapshot}: ")])
        == 1
    )


def test_it_takes_no_root(box: Path, known: Path) -> None:
    """The socket and the metrics are everybody's."""
    box.chmod(0o755)
    _watched(box, known, NOW - 60, peer("nas", "derp"))
    (box / "now.json").write_bytes(encoded(peer("nas", "derp")))
    ran = run(
        "peers",
        "--status-file",
        f"{box}/now.json",
        "--watchdog-metrics",
        str(known),
        "--now",
        str(NOW),
        around=UNPRIVILEGED,
    )
    assert (ran.status, ran.stderr) == (0, "")
    assert "waiting" in ran.stdout or "restart in" in ran.stdout


@pytest.mark.parametrize("tool", [("peers",), ("explain", "nas")])
def test_without_tailscaled_there_is_one_line(box: Path, tool: tuple[str, ...]) -> None:
    ran = run(*tool, "--socket", f"{box}/none.sock", "--source", "localapi")
    assert (ran.status, ran.stdout) == (1, "")
    (line,) = complaints(tool[0], ran)
    assert "is tailscaled running?" in line


def test_a_tailscaled_that_is_stopped_shows_no_peers(box: Path, known: Path) -> None:
    ran = _shown(box, known, ("peers",), peer("nas"), BackendState="Stopped")
    assert ran.stdout.startswith("self is Stopped, tailscaled 1.102.3\n")
    assert "nas" not in ran.stdout
    ran = _shown(box, known, ("explain", "nas"), peer("nas"), BackendState="Stopped")
    assert complaints("explain", ran) == [
        "explaining nas: tailscaled is Stopped, not Running, so it shows no peers; bring it up"
    ]


def test_a_watchdog_that_is_silent_is_said_to_be(box: Path, known: Path) -> None:
    _watched(box, known, NOW - 7200, peer("nas"))
    ran = _shown(box, known, ("peers",), peer("nas"))
    assert (
        "watchdog: last run 2h ago (it is silent: does its timer run?); no restart, 0 in all\n"
        in ran.stdout
    )


def test_one_that_saw_nobody_is_said_to_have(box: Path, known: Path) -> None:
    where = (
        "--status-file",
        f"{box}/none",
        "--state-dir",
        f"{box}/state",
        "--metrics-path",
        str(known),
    )
    run("watchdog", "--now", str(NOW - 60), *where)
    assert "(and could not see the peers)" in _shown(box, known, ("peers",), peer("nas")).stdout


# Terminals


def _on_terminal(
    *arguments: str, columns: int, lines: int = 50, env: Mapping[str, str] = {}
) -> str:
    """Runs tsfc on a terminal of that size; returns what was written there."""
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "cols", str(columns), "rows", str(lines)], stdin=theirs, check=True)
    environment = (
        {
            name: value
            for name, value in os.environ.items()
            if name not in {"NO_COLOR", "COLUMNS", "LINES"}
        }
        | {"TERM": "xterm-256color"}
        | dict(env)
    )
    written = b""
    with subprocess.Popen(
        [sys.executable, "-m", "tsfc", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        try:
            while piece := os.read(ours, 65536):
                written += piece
                if re.search(rb"and \d+ more", written) and "--watch" in arguments:
                    process.send_signal(signal.SIGINT)
        except OSError:  # Linux's word for the end
            pass
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def _many(box: Path, known: Path, number: int) -> tuple[str, ...]:
    names = [
        *(name for name in NAMES_FROM_HELL if name),
        *(f"a-rather-long-name-of-a-machine-{one}" for one in range(number)),
    ]
    paths = list(PATHS)
    (box / "now.json").write_bytes(
        encoded(
            *(
                peer("x", paths[at % 5], HostName=name, DNSName="", ID=f"n{at}")
                for at, name in enumerate(names)
            )
        )
    )
    return (
        "peers",
        "--status-file",
        f"{box}/now.json",
        "--watchdog-metrics",
        str(known),
        "--now",
        str(NOW),
    )


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 200])
def test_on_a_terminal_no_line_is_wider_than_it_and_none_is_broken(
    box: Path, known: Path, columns: int
) -> None:
    """Three hundred peers, and names from hell."""
    shown = CONTROL.sub("", _on_terminal(*_many(box, known, 300), columns=columns))
    lines = shown.rstrip("\n").split("\n")
    assert max(map(len, lines)) <= columns
    rows = [
        len(text.split("peer  ")[1].split("\n"))
        for text in ("\n".join(lines), run(*_many(box, known, 300)).stdout.rstrip("\n"))
    ]
    assert rows[0] == rows[1] > 300
    assert all(line.isprintable() for line in lines)
    if columns >= 100:
        head = next(line for line in lines if line.startswith("peer "))
        assert all(word in head for word in ("path", "since", "watchdog"))


def test_colours_are_for_terminals_that_want_them(box: Path, known: Path) -> None:
    arguments = _many(box, known, 3)
    assert "\x1b[31m" in _on_terminal(*arguments, columns=120)
    assert not re.search(
        r"\x1b\[[0-9;]*3[0-9]m", _on_terminal(*arguments, columns=120, env={"NO_COLOR": "1"})
    )
    assert not CONTROL.search(run(*arguments).stdout)


def test_a_name_is_cut_on_a_terminal_alone(box: Path, known: Path) -> None:
    name = "n" * 60
    (box / "now.json").write_bytes(encoded(peer(name)))
    arguments = ("peers", "--status-file", f"{box}/now.json", "--watchdog-metrics", str(known))
    assert f"\n{name}  " in run(*arguments).stdout
    assert re.search(r"\nn{5,31}…", CONTROL.sub("", _on_terminal(*arguments, columns=120)))


def test_watching_draws_what_fits_until_it_is_ended(box: Path, known: Path) -> None:
    """From the top each time, the calmest peers left out, and how many that are is said."""
    shown = _on_terminal(*_many(box, known, 300), "--watch", "0.05", columns=100, lines=20)
    drawings = shown.split("\x1b[H\x1b[2J")[1:]
    assert drawings
    assert all(drawing.count("\n") <= 20 for drawing in drawings)
    assert re.search(r"… and 3\d\d more\n", drawings[0])


def test_watching_goes_on_when_tailscaled_goes(box: Path) -> None:
    """Interrupted, it ends as every command does."""
    with started(
        "peers", "--watch", "0.05", "--socket", f"{box}/none", "--source", "localapi"
    ) as process:
        assert process.stderr
        assert b"is tailscaled running?" in process.stderr.readline()
        assert b"is tailscaled running?" in process.stderr.readline()
        interrupt(process, signal.SIGINT)
        assert ended(process).status == 130


# Pings


def test_a_ping_shows_how_long_it_took(box: Path, known: Path) -> None:
    """Against a stand-in, whose peers answer as their paths are; who is not pinged has no latency."""
    with started("stand-in", "--capture", str(TIMELINE), "--socket", f"{box}/s"):
        wait_until((box / "s").exists, "the stand-in listens")
        arguments = ("peers", "--ping", "--socket", f"{box}/s", "--watchdog-metrics", str(known))
        rows = _rows(run(*arguments).stdout)
        told = json.loads(run(*arguments, "--format", "json").stdout)
    assert {
        name: re.fullmatch(r"[\d.]+ ms", cells[-2]) is not None for name, cells in rows.items()
    } == dict.fromkeys(rows, True)
    assert {row["peer"]: row["ping"]["result"] for row in told["peers"]} == {
        row["peer"]: row["path"] for row in told["peers"]
    }
    assert all(0 <= row["ping"]["latency_seconds"] < 5 for row in told["peers"])


# explain


CASES: dict[Reason, tuple[list[tuple[int, str]], str, list[str]]] = {
    Reason.DIRECT: (
        [(60, "direct")],
        "direct",
        ["Should it lose its address, it would be 10m until that is too long."],
    ),
    Reason.DETECTED: (
        [(60, "direct")],
        "derp",
        ["If nothing changes, tailscaled is restarted in 10m 1s, because of it."],
    ),
    Reason.WAITING: (
        [(300, "derp")],
        "derp",
        [
            "If nothing changes, tailscaled is restarted in 5m 1s, because of it.",
            "With --max-relay-seconds 299 tailscaled would be restarted because of it.",
        ],
    ),
    Reason.RESTART: (
        [(700, "derp")],
        "derp",
        [
            "With --max-relay-seconds 700 it would be waited for.",
            "With --exclude-peer nas it would be on relay for too long, and excluded.",
        ],
    ),
    Reason.COOLDOWN: (
        [(900, "derp"), (200, "derp")],
        "derp",
        [
            "If nothing changes, tailscaled is restarted in 6m 40s, because of it.",
            "With --cooldown-seconds 200 tailscaled would be restarted because of it.",
        ],
    ),
    Reason.RECOVERED: ([(300, "derp")], "direct", []),
    Reason.RESTORED: (
        [(900, "derp"), (200, "derp")],
        "direct",
        ["With --cooldown-seconds 200 it would have recovered by itself."],
    ),
}


@pytest.mark.parametrize("reason", CASES)
def test_each_verdict_is_explained_with_what_would_change_it(
    box: Path, known: Path, reason: Reason
) -> None:
    before, path, sentences = CASES[reason]
    for ago, seen in before:
        _watched(box, known, NOW - ago, peer("nas", seen))
    ran = _shown(box, known, ("explain", "nas"), peer("nas", path))
    assert (ran.status, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    begin = re.split(r"\{", RULES[reason])[0]
    assert lines[2].startswith(f"Watchdog: {begin}")
    assert [line for line in lines[3:] if line in sentences] == sentences
    assert "{" not in ran.stdout


def test_one_that_is_excluded_is_explained(box: Path, known: Path) -> None:
    _watched(box, known, NOW - 700, peer("nas", "derp"), policy=(*POLICY, "--exclude-peer", "nas"))
    lines = _shown(box, known, ("explain", "nas"), peer("nas", "derp")).stdout.splitlines()
    assert (
        lines[2]
        == "Watchdog: no direct address for 11m 40s; that is too long, but it is excluded, and so never the cause of a restart."
    )
    assert "Without --exclude-peer nas tailscaled would be restarted because of it." in lines


def test_there_are_words_for_every_reason() -> None:
    assert set(RULES) == set(OUTCOMES) == set(Reason)
    assert set(CASES) | {Reason.EXCLUDED} == set(Reason)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"Expired": True}, "expired"),
        ({"ShareeNode": True}, "one that something of yours is shared to, or a Mullvad exit node"),
        ({"Online": False, "LastSeen": "2027-01-15T07:00:00Z"}, "offline"),
    ],
)
def test_one_that_is_not_watched_is_explained(
    box: Path, known: Path, fields: dict[str, Any], why: str
) -> None:
    _watched(box, known, NOW - 60, peer("nas"))
    lines = _shown(box, known, ("explain", "nas"), peer("nas", **fields)).stdout.splitlines()
    assert lines[2:] == [f"The watchdog does not watch it: it is {why}."]
    assert ("it last saw it 1h ago" in lines[0]) == ("LastSeen" in fields)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nass", "did you mean nas?"),
        ("\x1b[31m", "`tsfc peers` lists them"),
        ("", "`tsfc peers` lists them"),
    ],
)
def test_a_peer_that_is_not_there_is_one_line_with_the_nearest(
    box: Path, known: Path, name: str, hint: str
) -> None:
    ran = _shown(box, known, ("explain", name), peer("nas"), peer("rpi3"))
    assert (ran.status, ran.stdout) == (1, "")
    (line,) = complaints("explain", ran)
    assert line.endswith(f"there is no such peer; {hint}")


def test_lengths_of_time_and_bytes_are_short() -> None:
    assert [
        span(seconds) for seconds in (-5, 0, 59, 60, 61, 250, 3600, 7261, 86400, 97200, 266400)
    ] == [*("0s", "0s", "59s", "1m", "1m 1s", "4m 10s", "1h", "2h 1m", "1d", "1d 3h", "3d 2h")]
    assert [span(seconds, 1) for seconds in (0, 61, 3 * 86400 + 5)] == ["0s", "1m", "3d"]
    assert [quantity(number) for number in (0, 1023, 1024, 1536, 2**20, 5 * 2**30, 2**62)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "1.0 MiB",
        "5.0 GiB",
        "4096.0 PiB",
    ]
