"""While its pause file exists, the watchdog only tells."""

from __future__ import annotations

from msgspec.structs import replace

from core.watchdog.worlds import T0, derp_peer, lines, restarts
from support.statuses import decoded
from tsfc.core.clock import Instant
from tsfc.core.faults import Down
from tsfc.core.watchdog.events import Observed, Unobservable
from tsfc.core.watchdog.forecast import forecast, what_ifs
from tsfc.core.watchdog.memory import Memory, PeerMemory
from tsfc.core.watchdog.policy import GuardedPolicy, Policy, ThresholdPolicy, pause_file
from tsfc.core.watchdog.remedy import Attempt, Remedy, Stage
from tsfc.core.watchdog.state import Relay, State
from tsfc.core.watchdog.step import step
from tsfc.core.watchdog.track import Reason
from tsfc.core.watchdog.watch import Hold

GUARDED = GuardedPolicy(pause_file="/run/work/pause")
STATUS = decoded(derp_peer("nas"))
DUE = State(
    relays={"nas": Relay(T0 - 700, "nnasCNTRL")},
    policy="guarded",
    memory=Memory({"nnasCNTRL": PeerMemory(T0 - 800)}, steady_since=T0 - 700),
    last_success=Instant(T0 - 60),
    last_run=Instant(T0 - 60),
)
"A state in which a restart is due."
DOWN = replace(
    DUE,
    attempts=(Attempt(Remedy.RESTART, "nas", T0 - 1000, T0 - 700, Stage.FAILED),),
    has_answered=False,
)
"A state in which a failed restart has left tailscaled down."


def test_a_due_restart_is_held_and_the_line_names_the_file() -> None:
    held = step(DUE, Observed(STATUS, is_paused=True), now=Instant(T0), policy=GUARDED)
    assert lines(held) == (
        "HELD: nas on relay for 700s, not restarting: paused by /run/work/pause",
    )
    assert (held.hold, restarts(held)) == (Hold.PAUSED, ())
    assert len(restarts(step(DUE, Observed(STATUS), now=Instant(T0), policy=GUARDED))) == 1


def test_after_a_pause_the_node_has_to_be_steady_first() -> None:
    """What happened during the maintenance says little about the time after it."""
    held = step(DUE, Observed(STATUS, is_paused=True), now=Instant(T0), policy=GUARDED)
    after = step(held.state, Observed(STATUS), now=Instant(T0 + 60), policy=GUARDED)
    assert lines(after) == ("CONFIRMING: nas on relay for 760s, restart in 150s if it stays",)


def test_a_tailscaled_that_a_restart_left_down_stays_down_while_paused() -> None:
    event = Unobservable(Down("it is down"))
    again = step(DOWN, event, now=Instant(T0), policy=GUARDED)
    assert len(restarts(again)) == 1
    held = step(DOWN, replace(event, is_paused=True), now=Instant(T0), policy=GUARDED)
    assert lines(held)[-1] == (
        "HELD: tailscaled down since the restart 1000s ago, not restarting: "
        "paused by /run/work/pause"
    )
    assert restarts(held) == ()


def test_the_documented_policy_has_no_pause() -> None:
    documented: Policy = ThresholdPolicy()
    assert (pause_file(documented), pause_file(GUARDED)) == (None, "/run/work/pause")
    due = replace(DUE, policy="documented")
    for state, event in (
        (due, Observed(STATUS, is_paused=True)),
        (replace(DOWN, policy="documented"), Unobservable(Down("it is down"), is_paused=True)),
    ):
        assert len(restarts(step(state, event, now=Instant(T0), policy=documented))) == 1


def test_a_forecast_knows_the_pause() -> None:
    paused = forecast(DUE, Observed(STATUS, is_paused=True), now=Instant(T0), policy=GUARDED)
    assert (paused.hold, paused.due) == (Hold.PAUSED, None)
    assert forecast(DUE, Observed(STATUS), now=Instant(T0), policy=GUARDED).due is not None


def test_a_what_if_knows_the_pause() -> None:
    """No other option makes a paused watchdog restart anything."""
    paused = Observed(STATUS, is_paused=True)
    reasons = {
        found.reason for found in what_ifs(DUE, paused, "nas", now=Instant(T0), policy=GUARDED)
    }
    assert reasons == {Reason.WAITING, Reason.EXCLUDED}


def test_the_line_about_a_hostile_file_is_printable() -> None:
    hostile = replace(GUARDED, pause_file="/a\n\x1b[31m")
    (line,) = lines(step(DUE, Observed(STATUS, is_paused=True), now=Instant(T0), policy=hostile))
    assert line.isprintable()
