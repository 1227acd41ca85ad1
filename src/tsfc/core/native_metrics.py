"""What the job `native-metrics` says: tailscaled's own metrics, unchanged, and whether they could be had."""

from __future__ import annotations

from returns.result import Failure, Result, Success

from tsfc.core.faults import Unusable
from tsfc.core.metrics.families import Family, gauge
from tsfc.core.metrics.lint import check

OWN_PREFIX = "tailscale_native_metrics_"
"Metrics under this prefix are the job's own; tailscaled's are all `tailscaled_*`."


def checked(raw: bytes) -> Result[str, Unusable]:
    """Returns the exposition `raw` as text, its last line ended; fails where node_exporter or ours beside it would refuse it."""
    tried = f"reading tailscaled's metrics, {len(raw)} bytes"
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return Failure(
            Unusable(
                f"{tried}: byte {error.start} is not UTF-8; is it the output of `tailscale metrics print`?"
            )
        )
    if text and not text.endswith("\n"):
        text += "\n"
    names = check(text)
    if isinstance(names, Failure):
        return Failure(
            Unusable(f"{tried}: {names.failure()}; is it the output of `tailscale metrics print`?")
        )
    if any(name.startswith(OWN_PREFIX) for name in names.unwrap()):
        return Failure(
            Unusable(
                f"{tried}: it has a metric {OWN_PREFIX}*, which is tsfc's; is it a file of tsfc's own?"
            )
        )
    return Success(text)


def up(*, is_up: bool) -> Family:
    """Returns the metric that says whether tailscaled's metrics could be had, and thus whether there are any in the file."""
    return gauge(
        f"{OWN_PREFIX}up",
        "Whether tailscaled gave its own metrics (1) or could not be asked for them (0).",
        int(is_up),
    )
