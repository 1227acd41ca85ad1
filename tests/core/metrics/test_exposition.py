from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from returns.result import Failure

from support.corpus import NAMES_FROM_HELL, names
from tsfc.core.metrics.exposition import Renderer, render
from tsfc.core.metrics.families import Family, Kind, Sample, counter, gauge
from tsfc.core.metrics.lint import check

PARSE_ERROR = 1
"promtool's exit status for text that it cannot parse; 3 is a lint error."


def test_families_are_rendered_in_the_given_order() -> None:
    """HELP and TYPE come first, labels are sorted, and a newline ends the text."""
    families = [
        gauge("b", "Second.", 1),
        Family(
            "a_total",
            Kind.COUNTER,
            "First.",
            (Sample({"z": "1", "y": 'q"\\\n'}, 2.5), Sample({"z": "2", "y": ""}, 0)),
        ),
    ]
    assert render(families) == (
        "# HELP b Second.\n# TYPE b gauge\nb 1.0\n# HELP a_total First.\n# TYPE a_total counter\n"
        'a_total{y="q\\"\\\\\\n",z="1"} 2.5\na_total{y="",z="2"} 0.0\n'
    )


def test_a_family_without_samples_has_help_and_type() -> None:
    """So a metric is known before it has a series."""
    assert render([Family("a", Kind.GAUGE, "Text.", ())]) == "# HELP a Text.\n# TYPE a gauge\n"


def test_no_families_are_an_empty_text() -> None:
    assert render([]) == ""


SERIES = st.dictionaries(
    st.sampled_from(["peer", "path", "z"]), st.sampled_from([*NAMES_FROM_HELL, "nas"]), max_size=3
)
FAMILIES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b_total", "c"]),
        st.lists(st.tuples(SERIES, st.floats()), unique_by=lambda one: repr(one[0]), max_size=4),
    ),
    unique_by=lambda one: one[0],
    max_size=3,
)


@given(st.lists(FAMILIES, max_size=4))
def test_a_renderer_that_keeps_texts_writes_the_same(
    runs: list[list[tuple[str, list[tuple[dict[str, str], float]]]]],
) -> None:
    renderer = Renderer()
    for run in runs:
        families = [
            Family(
                name,
                Kind.COUNTER if name.endswith("_total") else Kind.GAUGE,
                "Text.",
                tuple(Sample(labels, value) for labels, value in samples),
            )
            for name, samples in run
        ]
        assert renderer.render(families) == render(families)


def test_a_renderer_keeps_histograms_and_forgets_series_that_have_gone() -> None:
    buckets = (Sample({"le": "+Inf"}, 3, "_bucket"), Sample({}, 3, "_count"), Sample({}, 1, "_sum"))
    histogram = Family("h", Kind.HISTOGRAM, "Text.", buckets)
    renderer = Renderer()
    for family in (histogram, replace(histogram, samples=buckets[:2]), histogram):
        assert renderer.render([family]) == render([family])
    assert renderer.render([]) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0"),
        (1, "1.0"),
        (True, "1.0"),
        (0.012346, "0.012346"),
        (1795438440, "1.79543844e+09"),
        (2**63 - 1, "9.223372036854776e+18"),
        (math.inf, "+Inf"),
    ],
)
def test_values_are_rendered_as_floats(value: float, text: str) -> None:
    assert render([counter("a_total", "Text.", value)]).splitlines()[-1] == f"a_total {text}"


@pytest.mark.parametrize("value", [10**10, 2**53 - 1, 2**53])
def test_integers_up_to_2_to_the_53_are_exact(value: int) -> None:
    """The exponent depends on the version of prometheus_client (e+010, e+10)."""
    assert float(render([counter("a_total", "Text.", value)]).split()[-1]) == value


def a_family() -> st.SearchStrategy[Family]:
    """Return a strategy for families with arbitrary label values."""
    text = names() | st.text(st.characters(exclude_categories=["Cs"]))
    series = st.dictionaries(text, st.floats(allow_nan=False), max_size=4)
    names_of_metrics = st.sampled_from(["a", "b_total", "c_seconds", "d_count", "e_bytes", "f_sum"])
    return st.builds(
        family_of,
        names_of_metrics,
        st.sampled_from(["Text.", 'A "quoted" text.', "back\\slash"]),
        series,
    )


def family_of(name: str, text: str, values: dict[str, float]) -> Family:
    kind = Kind.COUNTER if name.endswith("_total") else Kind.GAUGE
    return Family(
        name,
        kind,
        text,
        tuple(Sample({"peer": label, "path": "x"}, value) for label, value in values.items()),
    )


def some_families() -> st.SearchStrategy[list[Family]]:
    return st.lists(a_family(), max_size=4, unique_by=lambda family: family.name)


@given(some_families())
def test_rendered_text_passes_the_linter_and_parses_back(families: list[Family]) -> None:
    """Whatever the label values are, prometheus_client parses the same samples."""
    text = render(families)
    assert check(text).unwrap() == tuple(sorted(family.name for family in families))
    parsed = [
        (sample.name, sample.labels, sample.value)
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    ]
    assert parsed == [
        (family.name, sample.labels, sample.value)
        for family in families
        for sample in family.samples
    ]


def test_promtool_accepts_every_hostile_name(promtool: Callable[[str], tuple[int, str]]) -> None:
    """A label value may be any UTF-8 text."""
    labels = [{"peer": name} for name in NAMES_FROM_HELL.values()]
    assert promtool(
        render([Family("a", Kind.GAUGE, "Text.", tuple(Sample(label, 1) for label in labels))])
    ) == (0, "")


ACCEPTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty": ("", ()),
    "blank": ("\n\n", ()),
    "comments": ("# a comment\n#\n#comment # HELP\n", ()),
    "plain": ("a 1\n", ("a",)),
    "two": ("a 1\n\n# between\nb 2\n", ("a", "b")),
    "tab": ("a\t1\n", ("a",)),
    "no-labels": ("a{} 1\n", ("a",)),
    "label": ('a{b="c"} 1\n', ("a",)),
    "trailing-comma": ('a{b="c",} 1\n', ("a",)),
    "labels": ('a{b="c",d="e"} 1\na{b="c", d="f"} 1\n', ("a",)),
    "delimiters": ('a{b="}",c="#",d=",",e=" "} 1\n', ("a",)),
    "escapes": ('a{b="\\"\\\\\\n"} 1\n', ("a",)),
    "utf-8": ('a{b="café \U0001f369"} 1\n', ("a",)),
    "colons": (":a:b_9 1\n", (":a:b_9",)),
    "numbers": (
        "a +1\nb -1\nc .5\nd 5.\ne 1e9\nf 1.5E-3\ng +Inf\nh -Inf\ni Inf\nj NaN\n",
        tuple("abcdefghij"),
    ),
    "no-text": ("# HELP a\n# TYPE a gauge\na 1\n", ("a",)),
    "type-first": ("# TYPE a gauge\n# HELP a Text, \\\\ and \\n.\na 1\n", ("a",)),
    "counter-and-gauge": (
        "# TYPE a_total counter\na_total 1\n# TYPE a gauge\na 1\n",
        ("a", "a_total"),
    ),
    "histogram": (
        '# TYPE a histogram\na_bucket{le="1"} 1\na_bucket{le="+Inf"} 2\na_sum 3\na_count 2\n',
        ("a", "a_bucket", "a_count", "a_sum"),
    ),
    "summary": (
        '# TYPE a summary\na{quantile="0.5"} 1\na_sum 3\na_count 2\n',
        ("a", "a_count", "a_sum"),
    ),
    "untyped": ("# TYPE a untyped\na 1\n", ("a",)),
    "no-samples": ("# TYPE a gauge\n# TYPE b gauge\nb 1\n", ("a", "b")),
}
"Texts that the format allows, and the names of their metrics."


@pytest.mark.parametrize("case", ACCEPTED)
def test_valid_expositions_are_accepted(case: str) -> None:
    text, metric_names = ACCEPTED[case]
    assert check(text).unwrap() == metric_names


@pytest.mark.parametrize("case", ACCEPTED)
def test_promtool_accepts_the_valid_expositions(
    case: str, promtool: Callable[[str], tuple[int, str]]
) -> None:
    """So the linter accepts nothing that Prometheus rejects."""
    status, output = promtool(ACCEPTED[case][0])
    assert status != PARSE_ERROR, output


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a 1", "the last line does not end with a newline"),
        ("a 1\nb", "line 2 is not a valid sample: 'b'"),
        ("a\n", "line 1 is not a valid sample: 'a'"),
        (" a 1\n", "line 1 is not a valid sample: 'a 1'"),
        ("a 1 \n", "line 1 is not a valid sample: 'a 1'"),
        ("a one\n", "line 1 is not a valid sample: 'a one'"),
        ("a 0x1\n", "line 1 is not a valid sample: 'a 0x1'"),
        ("a 1_0\n", "line 1 is not a valid sample: 'a 1_0'"),
        ("a \u0661\n", "line 1 is not a valid sample: 'a \u0661'"),
        ("a 1\r\n", "line 1 is not a valid sample: 'a 1'"),
        ("9a 1\n", "line 1 is not a valid sample: '9a 1'"),
        ("a-b 1\n", "line 1 is not a valid sample: 'a-b 1'"),
        ("é 1\n", "line 1 is not a valid sample: 'é 1'"),
        ("a{b=c} 1\n", "line 1 is not a valid sample: 'a{b=c} 1'"),
        ('a{b="c} 1\n', "line 1 is not a valid sample: 'a{b=\"c} 1'"),
        ('a{b="c" 1\n', "line 1 is not a valid sample: 'a{b=\"c\" 1'"),
        ('a{b="c"} 1}\n', "line 1 is not a valid sample: 'a{b=\"c\"} 1}'"),
        ('a{b="\\q"} 1\n', "line 1 is not a valid sample: 'a{b=\"\\\\q\"} 1'"),
        ('a{b="c\nd"} 1\n', "line 1 is not a valid sample: 'a{b=\"c'"),
        ('a{__name__="b"} 1\n', "line 1 is not a valid sample: 'a{__name__=\"b\"} 1'"),
        ('a{b-c="d"} 1\n', "line 1 is not a valid sample: 'a{b-c=\"d\"} 1'"),
        ("a 1e400\n", "line 1 has a value out of range: 'a 1e400'"),
        (
            "a 1 1795438440000\n",
            "line 1 has a timestamp, which a textfile must not have: 'a 1 1795438440000'",
        ),
        ("# TYPE a\n", "line 1 is not a valid HELP or TYPE: '# TYPE a'"),
        ("# TYPE a gauge \n", "line 1 is not a valid HELP or TYPE: '# TYPE a gauge'"),
        ("# TYPE a novelty\n", "line 1 is not a valid HELP or TYPE: '# TYPE a novelty'"),
        ("# HELP\n", "line 1 is not a valid HELP or TYPE: '# HELP'"),
        ("# HELP a \\q\n", "line 1 is not a valid HELP or TYPE: '# HELP a \\\\q'"),
        ("#HELP a b\n", "line 1 is not a valid HELP or TYPE: '#HELP a b'"),
        ("# HELP a b\n# HELP a b\n", "duplicate HELP of a"),
        ("# TYPE a gauge\n# TYPE a gauge\n", "duplicate TYPE of a"),
        ("a 1\nb 1\na 2\n", "the lines of a are not in one block"),
        ('a{x="1"} 1\na{x="1"} 2\n', "a has duplicate samples with the labels {'x': '1'}"),
        (
            'a{x="1",y="2"} 1\na{y="2",x="1"} 1\n',
            "a has duplicate samples with the labels {'x': '1', 'y': '2'}",
        ),
        ("a 1\na NaN\n", "a has duplicate samples with the labels {}"),
        ('# TYPE a summary\na{quantile="median"} 1\n', "the label quantile of a is not a number"),
        ('# TYPE a histogram\na_bucket{le="much"} 1\n', "the label le of a_bucket is not a number"),
        (
            "<html>\x1b[31m</html>\n",
            "line 1 is not a valid sample: '<html>\N{REPLACEMENT CHARACTER}[31m</html>'",
        ),
        ("x" * 10_240 + "\n", "line 1 is not a valid sample: '" + "x" * 80 + "…'"),
    ],
)
def test_invalid_expositions_are_rejected(text: str, problem: str) -> None:
    """In one line: where and why. node_exporter would reject the whole file."""
    assert check(text).failure() == problem
    assert problem.isprintable()


def test_a_duplicate_label_is_rejected() -> None:
    """The wording is that of prometheus_client."""
    assert "1" in check('a{b="1",b="2"} 1\n').failure()


LINES = [
    "# HELP M Text.\n",
    "# HELP M_sum Text.\n",
    "# TYPE M gauge\n",
    "# TYPE M summary\n",
    "# TYPE M histogram\n",
    "# TYPE M_sum counter\n",
    "# TYPE M_count untyped\n",
    "M 1\n",
    'M{x="1"} 1\n',
    'M{quantile="1"} 1\n',
    "M_sum 1\n",
    "M_count 1\n",
    'M_bucket{le="1"} 1\n',
]
"""Lines that are each valid alone; together they may not be.

The lines before decide which metric a HELP or TYPE belongs to and whether it is too
late.
"""


def test_promtool_accepts_every_short_exposition_that_the_linter_accepts(
    promtool: Callable[[str], tuple[int, str]],
) -> None:
    """All texts of up to three of the lines above.

    Each accepted text gets its own metric name, so one call of promtool checks them
    all.
    """
    texts = (
        "".join(lines) for length in range(1, 4) for lines in itertools.permutations(LINES, length)
    )
    accepted = [text for text in texts if not isinstance(check(text), Failure)]
    assert len(accepted) > 500
    status, output = promtool(
        "".join(text.replace("M", f"m{number}") for number, text in enumerate(accepted))
    )
    assert status != PARSE_ERROR, output


VALID = (
    "# comment\n# HELP a Text \\\\ and \\n.\n# TYPE a gauge\na 1\n\n# TYPE b_total counter\n"
    'b_total{x="y",z="\\"\\\\\\n"} 1.5e+09\nb_total{x="é"} NaN\n'
    '# TYPE c histogram\nc_bucket{le="1"} 1\nc_bucket{le="+Inf"} 2\nc_sum -3\nc_count 2\n'
    '# TYPE d summary\nd{quantile="0.5"} 1\nd_sum 3\nd_count 2\ne 0\n'
)
PIECES = [
    *'ab_ \t\n\r"\\{}=,#:+-.0e9',
    "é",
    "\0",
    "\u2028",
    "\x85",
    "NaN",
    "Inf",
    "# ",
    "HELP ",
    "TYPE ",
    " 1\n",
    'le="',
    "\\n",
    "_sum",
    "_total",
    "gauge",
    "summary",
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Return a valid exposition with lines moved and pieces inserted or dropped."""
    lines = VALID.splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(
            draw(st.integers(0, len(lines))), lines.pop(draw(st.integers(0, len(lines) - 1)))
        )
    text = "".join(lines)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at] + draw(st.sampled_from(["", *PIECES])) + text[at + draw(st.integers(0, 3)) :]
        )
    return text


@pytest.mark.slow
@given(mutated() | st.text())
@settings(max_examples=300)
def test_the_linter_never_raises(text: str) -> None:
    """A rejection is one printable line.

    prometheus_client parses what the linter accepts, and every series is there once.
    """
    result = check(text)
    if isinstance(result, Failure):
        assert result.failure()
        assert result.failure().isprintable()
        assert len(result.failure()) < 400
        return
    series = Counter(
        (sample.name, frozenset(sample.labels.items()))
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    )
    assert set(series.values()) <= {1}
    assert {name for name, _ in series} <= set(result.unwrap())


@pytest.mark.slow
@given(mutated().filter(lambda text: not isinstance(check(text), Failure)))
@settings(max_examples=80, suppress_health_check=[HealthCheck.filter_too_much])
def test_promtool_accepts_every_exposition_that_the_linter_accepts(
    promtool: Callable[[str], tuple[int, str]], text: str
) -> None:
    """The linter is at least as strict as Prometheus' own parser."""
    status, output = promtool(text)
    assert status != PARSE_ERROR, output
