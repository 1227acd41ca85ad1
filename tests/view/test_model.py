"""The data of the views: what comes next for a peer, and formats of numbers."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from support.statuses import decoded, peer
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.guarded import WORDS
from tsfc.core.watchdog.memory import Memory, PeerMemory, Record
from tsfc.core.watchdog.remedy import Remedy
from tsfc.core.watchdog.track import Reason
from tsfc.core.watchdog.watch import Hold
from tsfc.view.model import HOLDS, NEXT, byte_size

from . import guarded
from .node import NOW

LONGEST_NEXT = 34
"Characters that the last column of the table has on most terminals."


@pytest.mark.parametrize("hold", Hold)
def test_a_peer_that_is_held_has_the_reason_in_few_words(hold: Hold) -> None:
    """A new reason needs words, and a case here."""
    view = guarded.HELD[hold]
    assert view.forecast is not None
    assert (view.forecast.hold, view.rows[0].verdict) == (hold, Reason.HELD)
    assert view.rows[0].next == f"held: {HOLDS[hold]}"


def test_what_comes_next_is_short() -> None:
    words = [*NEXT.values(), *(f"held: {why}" for why in HOLDS.values())]
    assert max(map(len, words)) <= LONGEST_NEXT
    assert len(set(HOLDS.values())) == len(Hold)


@pytest.mark.parametrize("remedy", Remedy)
def test_the_remedy_that_is_due_is_named(remedy: Remedy) -> None:
    policy = replace(guarded.POLICY, remedies=(remedy,))
    due = guarded.view(policy=policy).rows[0]
    assert due.next == f"{WORDS[remedy]} in the next run"
    later = guarded.view(policy=replace(policy, max_relay_seconds=710)).rows[0]
    assert later.next == f"{WORDS[remedy]} in 11s"
    failed = {remedy: Record(NOW - 900, unhelpful=1, times=1, streak=1)}
    memory = Memory({"nnasCNTRL": PeerMemory(NOW - 800, failed)}, steady_since=NOW - 700)
    patient = guarded.view(policy=policy, state=replace(guarded.STATE, memory=memory)).rows[0]
    assert patient.next.startswith(f"patient, {WORDS[remedy]} worth it in 6h ")


def test_without_a_remedy_there_is_nothing_to_wait_for() -> None:
    row = guarded.view(policy=replace(guarded.POLICY, remedies=())).rows[0]
    assert row.next == "patient, no remedy is allowed"


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("idle", {}, "ignored while idle"),
        ("peer_relay", {}, "ignored: peer relay"),
        ("derp", {"Relay": "", "TxBytes": 2000}, "ignored: no path"),
        ("derp", {"OS": "iOS"}, "ignored: phone"),
        ("direct", {"OS": "android"}, "ignored: phone"),
    ],
)
def test_a_peer_without_evidence_says_why(path: str, fields: dict[str, Any], words: str) -> None:
    row = guarded.view(Observed(decoded(peer("nas", path, **fields)))).rows[0]
    assert (row.verdict, row.next) == (Reason.UNKNOWN, words)


def test_a_direct_peer_with_a_dead_data_plane_is_not_only_direct() -> None:
    row = guarded.DEAD.rows[0]
    assert (row.is_dead, row.next) == (True, "direct, but no data comes back")


def test_relay_that_only_the_next_run_detects_has_no_start() -> None:
    """After somebody has started tailscaled, the relay of each peer begins again."""
    state = replace(guarded.STATE, tailscaled_start=NOW - 9000)
    restarted = guarded.view(replace(guarded.OBSERVED, tailscaled_start=NOW - 700), state=state)
    row = restarted.rows[0]
    assert (row.verdict, row.relay_since, row.relay_seconds) == (Reason.DETECTED, None, 0)
    assert guarded.view().rows[0].relay_since == NOW - 700


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20, "1.0 MiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**62, "4096.0 PiB"),
    ],
)
def test_a_byte_size_has_its_largest_fitting_unit(number: int, text: str) -> None:
    assert byte_size(number) == text
