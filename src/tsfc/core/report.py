"""What a job found: its result before anything is written."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from tsfc.core.metrics.families import Family


class Report(Struct, frozen=True):
    """Metrics and exit status of one run of a job."""

    families: Iterable[Family]
    passthrough: str = ""
    "An exposition that goes before the families, without changes or added labels."
    snapshot: str = ""
    "JSON for `tsfc peers` and `tsfc explain`, which goes beside the metrics."
    exit_status: int = 0
