"""What can be done about a relay, and the record of each time that it was done."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from tsfc.core.clock import Seconds


class Remedy(StrEnum):
    """A way to get a peer off its relay."""

    RESTART = "restart"
    "Restart tailscaled."


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
    "The peer was direct at `judge_at`."
    FUTILE = "futile"
    "The peer was still on relay at `judge_at`."
    UNKNOWN = "unknown"
    "The command did not succeed, or the peer could not be observed at `judge_at`."


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
