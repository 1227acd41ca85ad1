"""Text to samples: the way back, for those that read what a job has written."""

from __future__ import annotations

from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families
from returns.result import Failure, Result, Success

from tsfc.core.metrics.families import Sample
from tsfc.core.text import one_line


def read(text: str) -> Result[dict[str, tuple[Sample, ...]], str]:
    """Returns the samples of an exposition by the name of their metric, in the order of the text; fails, in one line, where it is none."""
    found: defaultdict[str, list[Sample]] = defaultdict(list)
    try:
        for metric in text_string_to_metric_families(text):
            for sample in metric.samples:
                found[sample.name].append(Sample(dict(sample.labels), sample.value))
    except ValueError as error:
        return Failure(one_line(str(error)) or "a line is no sample")
    return Success({name: tuple(samples) for name, samples in found.items()})
