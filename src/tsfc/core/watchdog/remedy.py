"""What can be done about a relay, and the record of each time that it was done."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from tsfc.core.clock import Seconds


class Remedy(StrEnum):
    """A way to get a peer off its relay."""

    RESTART = "restart"
    "Restart tailscaled."
    OTHER_PORT = "other-port"
    "Restart tailscaled with another UDP port."


class Stage(StrEnum):
    """How far the command of an attempt has come.

    Each stage is in the state file before the next one begins. A run that dies leaves
    the stage that it had reached.
    """

    DECIDED = "decided"
    "The command has certainly not been run."
    ASKED = "asked"
    "The command may have been run; its outcome is unknown."
    DONE = "done"
    FAILED = "failed"
    DECLINED = "declined"
    "The unit had been stopped on purpose, so the command left it alone."


class AttemptResult(StrEnum):
    """Whether an attempt helped the peer that caused it."""

    PENDING = "pending"
    "It is too early to tell."
    HELPED = "helped"
    "The peer was direct at `judge_at` or before."
    NO_EFFECT = "no_effect"
    "The peer was still on relay at `judge_at`."
    WORSE = "worse"
    "As `NO_EFFECT`, and fewer peers were direct than before the attempt."
    UNCONFIRMED = "unconfirmed"
    "The command did not succeed, or the peer could not be observed at `judge_at`."


RESULTS = (
    AttemptResult.HELPED,
    AttemptResult.NO_EFFECT,
    AttemptResult.WORSE,
    AttemptResult.UNCONFIRMED,
)
"All final results."


class Attempt(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One application of a remedy.

    What the command did (`stage`) and whether it helped (`result`) are two questions:
    a restart can succeed and change nothing.
    """

    remedy: Remedy
    peer: str
    "Name of the peer that caused it; empty if unknown."
    at: Seconds
    "Unix time of the decision."
    judge_at: Seconds
    "Unix time from which `result` is determined."
    stage: Stage = Stage.DECIDED
    result: AttemptResult = AttemptResult.PENDING
    peer_id: str = ""
    "StableNodeID of that peer; empty if unknown."
    cooldown_seconds: Seconds | None = None
    "Time after `at` in which there is no other attempt; None for that of the policy."
    direct_peers: Seconds = 0
    "Number of peers that were direct when it was decided; 0 if nobody counted."
    is_harmless: bool = False
    """The command failed, and tailscaled has run without a break since before it.

    Only `GuardedPolicy` determines this. False if the start of tailscaled is unknown.
    """
    is_undone: bool = False
    """Somebody else has started tailscaled since then, on the configured port.

    Only of `OTHER_PORT`. False if the start of tailscaled is unknown.
    """
    subjects: tuple[str, ...] = ()
    """Peers that were on relay when it was decided, and whose outcome is open.

    Each by its StableNodeID, or its name where that is unknown. Such an outcome tells
    something about the peer even if another one caused the attempt.
    """


class Done(Struct, frozen=True, tag=True):
    """The command of a remedy succeeded."""


class Failed(Struct, frozen=True, tag=True):
    """The command of a remedy failed."""

    detail: str
    "One line: what was tried, what went wrong, what to do."


class Declined(Struct, frozen=True, tag=True):
    """The command of a remedy changed nothing: the unit had been stopped on purpose."""

    detail: str
    "One line: what was tried, why it was not done, what to do."


class Withheld(Struct, frozen=True, tag=True):
    """The command was not run, because this is a dry run."""


Outcome = Done | Failed | Declined
