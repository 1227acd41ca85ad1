"""Metrics of the job `native-metrics`: tailscaled's own, unchanged, and `up`."""

from __future__ import annotations

from collections.abc import Mapping

from returns.result import Failure, Result, Success

from tsfc.core.faults import Unusable
from tsfc.core.metrics.families import NO_LABELS, Family, gauge
from tsfc.core.metrics.labels import add_to_text
from tsfc.core.metrics.lint import check

OWN_PREFIX = "tailscale_native_metrics_"
"Prefix of the job's own metrics; those of tailscaled are all `tailscaled_*`."


def validated(raw: bytes, *, labels: Mapping[str, str] = NO_LABELS) -> Result[str, Unusable]:
    """Return the exposition `raw` as text that ends with a newline.

    Each sample gets `labels`; all else is unchanged.

    Fails if node_exporter would reject it, if it has no sample, if the job's own
    metrics cannot follow it, or if a sample has one of the labels already.
    """
    action = f"reading tailscaled's metrics, {len(raw)} bytes"
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return Failure(
            Unusable(
                f"{action}: byte {error.start} is not UTF-8; "
                "is it the output of `tailscale metrics print`?"
            )
        )

    # The job's own metrics follow on the next line.
    if text and not text.endswith("\n"):
        text += "\n"

    # node_exporter rejects invalid text, and two HELP or TYPE of one metric.
    names = check(text)
    if isinstance(names, Failure):
        return Failure(
            Unusable(f"{action}: {names.failure()}; is it the output of `tailscale metrics print`?")
        )
    if any(name.startswith(OWN_PREFIX) for name in names.unwrap()):
        return Failure(
            Unusable(
                f"{action}: it contains a metric {OWN_PREFIX}*, which tsfc writes; "
                "is it a file that tsfc wrote?"
            )
        )
    # A running tailscaled always has samples.
    if all(not line or line.startswith("#") for line in text.split("\n")):
        return Failure(
            Unusable(
                f"{action}: it has no sample; run `tailscale metrics print` by hand for details"
            )
        )
    labelled = add_to_text(text, labels)
    if isinstance(labelled, Failure):
        return Failure(Unusable(f"{action}: {labelled.failure()}; choose another name for --label"))
    return Success(labelled.unwrap())


def up(*, is_up: bool) -> Family:
    """Return the metric that tells whether the file has tailscaled's metrics."""
    return gauge(
        f"{OWN_PREFIX}up",
        "Whether tailscaled's own metrics could be read (1) or not (0).",
        int(is_up),
    )
