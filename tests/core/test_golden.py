from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.corpus import FIXTURES
from tsfc.core import exporter, keepalive
from tsfc.core import native_metrics as native
from tsfc.core.clock import Instant
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.lint import check
from tsfc.core.tailscale import ping
from tsfc.core.tailscale.status import decode
from tsfc.core.watchdog.effects import Apply, Log
from tsfc.core.watchdog.events import Observed, Performed
from tsfc.core.watchdog.metrics import metrics as watchdog_families
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.remedy import Done
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.snapshot import Snapshot, encode
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import step

STATUSES = sorted(path.name for path in FIXTURES.glob("*.json"))
NOW = 1795438440
"2026-11-23T12:54:00Z in Unix seconds, just after the statuses were captured."


def exported(name: str) -> str:
    return render(
        exporter.metrics(
            decode((FIXTURES / name).read_bytes()).unwrap(), now=NOW, last_success=None
        )
    )


def unreachable() -> str:
    return render(exporter.metrics(None, now=NOW, last_success=NOW - 30))


def native_up() -> str:
    return native.validated((FIXTURES / "usermetrics.txt").read_bytes()).unwrap() + render(
        [native.up(is_up=True)]
    )


def native_down() -> str:
    return render([native.up(is_up=False)])


def keepalive_round() -> str:
    """Return the metrics of a round over a captured status, with every outcome."""
    status = decode((FIXTURES / "mixed-paths.json").read_bytes()).unwrap()
    results = [
        ping.parse_response(
            b'{"Endpoint": "192.0.2.7:41641", "LatencySeconds": 0.012345678}'
        ).unwrap(),
        ping.parse_response(
            b'{"PeerRelay": "192.0.2.9:7777:vni:1", "LatencySeconds": 0.025}'
        ).unwrap(),
        ping.parse_response(
            b'{"DERPRegionID": 1, "DERPRegionCode": "fra", "LatencySeconds": 1.007}'
        ).unwrap(),
        ping.NO_REPLY,
        ping.ERROR,
    ]
    pings = keepalive.pings(status)
    return render(
        keepalive.metrics(
            {ping.peer: (results[number % len(results)],) for number, ping in enumerate(pings)}
        )
    )


def watchdog_runs() -> tuple[str, str, str]:
    """Log, last metrics and last snapshot of the watchdog over the captured timeline.

    It has 290 seconds, in runs 10 s apart. Threshold and cooldown are short, so
    everything but a failed restart happens.
    """
    policy = ThresholdPolicy(
        max_relay_seconds=60, cooldown_seconds=120, excluded=frozenset({"delta"})
    )
    state, lines, text, snapshot = State(), list[str](), "", ""
    for line in (FIXTURES / "timeline.ndjson").read_bytes().splitlines():
        observation: dict[str, Any] = msgspec.json.decode(line)
        now = Instant(int(observation["captured_at"]))
        transition = step(
            state,
            Observed(decode(msgspec.json.encode(observation["status"])).unwrap()),
            now=now,
            policy=policy,
        )
        state = transition.state
        lines += [
            f"{now.unix} {effect.line}\n"
            for effect in transition.effects
            if isinstance(effect, Log)
        ]
        for effect in transition.effects:
            if isinstance(effect, Apply):
                state = step(state, Performed(effect.attempt, Done()), now=now, policy=policy).state
        run = Run(now, state, unmatched=transition.unmatched, verdicts=transition.verdicts)
        text = render(watchdog_families(run, policy))
        snapshot = encode(Snapshot(now, policy, state))
    return "".join(lines), text, snapshot


GOLDEN: dict[str, Callable[[], str]] = {
    **{Path(name).with_suffix(".prom").name: partial(exported, name) for name in STATUSES},
    "unreachable.prom": unreachable,
    "usermetrics.prom": native_up,
    "native-down.prom": native_down,
    "keepalive.prom": keepalive_round,
    "timeline.prom": lambda: watchdog_runs()[1],
    "timeline.log": lambda: watchdog_runs()[0],
    "watchdog/timeline.json": lambda: watchdog_runs()[2],
}
EXPOSITIONS = [name for name in GOLDEN if name.endswith(".prom")]


@pytest.mark.parametrize("name", GOLDEN)
def test_output_is_the_golden_one_to_the_byte(name: str) -> None:
    """The same input gives the same output; `make golden` rewrites the files."""
    path = FIXTURES / name
    if os.environ.get("TSFC_WRITE_GOLDEN"):
        path.write_text(GOLDEN[name](), encoding="utf-8", newline="")
    assert path.read_bytes().decode() == GOLDEN[name]()


def test_every_golden_file_is_compared() -> None:
    files = [*FIXTURES.glob("*.prom"), *FIXTURES.glob("*.log"), *FIXTURES.glob("watchdog/*")]
    assert {str(path.relative_to(FIXTURES)) for path in files} == set(GOLDEN)


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_promtool_finds_nothing_wrong(
    name: str, promtool: Callable[[str], tuple[int, str]]
) -> None:
    """The parser and the linter accept each file, even tailscaled's own metrics."""
    assert promtool(GOLDEN[name]()) == (0, "")


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_each_metric_is_one_block_without_duplicate_series(name: str) -> None:
    """It has one HELP and one TYPE, as parsed and line by line."""
    text = GOLDEN[name]()
    metrics = list(text_string_to_metric_families(text))
    series = Counter(
        (sample.name, frozenset(sample.labels.items()))
        for metric in metrics
        for sample in metric.samples
    )
    assert max(series.values()) == 1
    assert max(Counter(metric.name for metric in metrics).values()) == 1
    samples = [
        line.partition(" ")[0].partition("{")[0]
        for line in text.splitlines()
        if not line.startswith("#")
    ]
    assert max(Counter(sample for sample, _ in groupby(samples)).values()) == 1
    descriptions = Counter(
        tuple(line.split()[1:3]) for line in text.splitlines() if line.startswith("#")
    )
    assert set(descriptions.values()) == {1}


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_the_own_linter_accepts_it(name: str) -> None:
    """It checks tailscaled's metrics, and accepts those of all jobs."""
    assert check(GOLDEN[name]()).unwrap()


@pytest.mark.parametrize("name", GOLDEN)
def test_each_line_is_printable(name: str) -> None:
    """No name of a peer brings an escape sequence or a newline into the output."""
    assert [line for line in GOLDEN[name]().split("\n") if not line.isprintable()] == []
