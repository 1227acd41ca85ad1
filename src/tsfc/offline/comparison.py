"""What `tsfc replay` and `tsfc simulate` have in common: options and exit status."""

from __future__ import annotations

from msgspec import Struct
from returns.result import Result

from tsfc.core.evaluation import policies
from tsfc.core.evaluation.candidate import Candidate
from tsfc.core.watchdog.policy import Policy


class Comparison(Struct, frozen=True):
    """Options of both commands: the policies to compare, and the output."""

    policy: Policy
    comparisons: tuple[str, ...]
    "Values of `--compare`, each `option=value,…`; empty to run only `policy`."
    is_json: bool
    report: str | None
    "Path of the HTML report."
    cluster: str | None
    "Address of a Dask scheduler, or None to run on this machine."

    def policies(self) -> Result[tuple[Candidate, ...], str]:
        """Return all policies to compare. Fails if `--compare` is malformed."""
        return policies.policies(self.policy, self.comparisons)


def worst(*statuses: int) -> int:
    """Exit status of a command that has several steps: that of the worst step."""
    return max(statuses)
