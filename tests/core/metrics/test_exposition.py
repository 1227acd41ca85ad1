from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from returns.result import Failure

from support.corpus import NAMES_FROM_HELL, names
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.families import Family, Kind, Sample, counter, gauge
from tsfc.core.metrics.lint import check

PARSE_ERROR = 1
"promtool's exit status for a text that it cannot read; what its linter objects to is 3."


def test_families_are_rendered_in_their_order() -> None:
    """One block each, HELP and TYPE first; labels in the order of their names; a line feed at the end."""
    said = [
        gauge("b", "Second.", 1),
        Family(
            "a_total",
            Kind.COUNTER,
            "First.",
            (Sample({"z": "1", "y": 'q"\\\n'}, 2.5), Sample({"z": "2", "y": ""}, 0)),
        ),
    ]
    assert render(said) == (
        '# HELP b Second.\n# TYPE b gauge\nb 1.0\n# HELP a_total First.\n# TYPE a_total counter\na_total{y="q\\"\\\\\\n",z="1"} 2.5\na_total{y="",z="2"} 0.0\n'
    )


def test_a_family_without_samples_is_described() -> None:
    """So that a metric is known before it has a series."""
    assert render([Family("a", Kind.GAUGE, "Text.", ())]) == "# HELP a Text.\n# TYPE a gauge\n"


def test_nothing_is_nothing() -> None:
    """No families, no text."""
    assert render([]) == ""


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
def test_a_number_is_as_precise_as_a_sample_can_be(value: float, text: str) -> None:
    """Prometheus has floats."""
    assert render([counter("a_total", "Text.", value)]).splitlines()[-1] == f"a_total {text}"


@pytest.mark.parametrize("value", [10**10, 2**53 - 1, 2**53])
def test_up_to_2_to_the_53_nothing_is_lost(value: int) -> None:
    """How the exponent is written depends on the version of prometheus_client (e+010, e+10); what is read does not."""
    assert float(render([counter("a_total", "Text.", value)]).split()[-1]) == value


def a_family() -> st.SearchStrategy[Family]:
    """Families as the jobs make them, but for the labels' values, which may be any text at all."""
    text = names() | st.text(st.characters(exclude_categories=["Cs"]))
    series = st.dictionaries(text, st.floats(allow_nan=False), max_size=4)
    names_of_metrics = st.sampled_from(["a", "b_total", "c_seconds", "d_count", "e_bytes", "f_sum"])
    return st.builds(
        of_labels,
        names_of_metrics,
        st.sampled_from(["Text.", 'A "quoted" text.', "back\\slash"]),
        series,
    )


def of_labels(name: str, text: str, values: dict[str, float]) -> Family:
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
def test_what_is_rendered_passes_the_check_and_is_read_back(said: list[Family]) -> None:
    """Whatever the labels hold: the check accepts it, and prometheus_client reads back just these samples."""
    text = render(said)
    assert check(text).unwrap() == tuple(sorted(family.name for family in said))
    read = [
        (sample.name, sample.labels, sample.value)
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    ]
    assert read == [
        (family.name, sample.labels, sample.value) for family in said for sample in family.samples
    ]


def test_promtool_reads_every_name_from_hell(promtool: Callable[[str], tuple[int, str]]) -> None:
    """The text format can hold anything in a label that is UTF-8."""
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
"What the format allows, and the names that it speaks of."


@pytest.mark.parametrize("case", ACCEPTED)
def test_an_exposition_is_accepted(case: str) -> None:
    """What the format allows, with the names that it speaks of."""
    text, found = ACCEPTED[case]
    assert check(text).unwrap() == found


@pytest.mark.parametrize("case", ACCEPTED)
def test_promtool_reads_it_too(case: str, promtool: Callable[[str], tuple[int, str]]) -> None:
    """The cases above are not too kind."""
    status, said = promtool(ACCEPTED[case][0])
    assert status != PARSE_ERROR, said


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a 1", "the last line has no end"),
        ("a 1\nb", "line 2 is no valid sample: 'b'"),
        ("a\n", "line 1 is no valid sample: 'a'"),
        (" a 1\n", "line 1 is no valid sample: 'a 1'"),
        ("a 1 \n", "line 1 is no valid sample: 'a 1'"),
        ("a one\n", "line 1 is no valid sample: 'a one'"),
        ("a 0x1\n", "line 1 is no valid sample: 'a 0x1'"),
        ("a 1_0\n", "line 1 is no valid sample: 'a 1_0'"),
        ("a \u0661\n", "line 1 is no valid sample: 'a \u0661'"),
        ("a 1\r\n", "line 1 is no valid sample: 'a 1'"),
        ("9a 1\n", "line 1 is no valid sample: '9a 1'"),
        ("a-b 1\n", "line 1 is no valid sample: 'a-b 1'"),
        ("é 1\n", "line 1 is no valid sample: 'é 1'"),
        ("a{b=c} 1\n", "line 1 is no valid sample: 'a{b=c} 1'"),
        ('a{b="c} 1\n', "line 1 is no valid sample: 'a{b=\"c} 1'"),
        ('a{b="c" 1\n', "line 1 is no valid sample: 'a{b=\"c\" 1'"),
        ('a{b="c"} 1}\n', "line 1 is no valid sample: 'a{b=\"c\"} 1}'"),
        ('a{b="\\q"} 1\n', "line 1 is no valid sample: 'a{b=\"\\\\q\"} 1'"),
        ('a{b="c\nd"} 1\n', "line 1 is no valid sample: 'a{b=\"c'"),
        ('a{__name__="b"} 1\n', "line 1 is no valid sample: 'a{__name__=\"b\"} 1'"),
        ('a{b-c="d"} 1\n', "line 1 is no valid sample: 'a{b-c=\"d\"} 1'"),
        ("a 1e400\n", "line 1 has a value out of range: 'a 1e400'"),
        ("a 1 1795438440000\n", "line 1 has a timestamp, which a textfile must not have: 'a 1 1795438440000'"),
        ("# TYPE a\n", "line 1 is no valid HELP or TYPE: '# TYPE a'"),
        ("# TYPE a gauge \n", "line 1 is no valid HELP or TYPE: '# TYPE a gauge'"),
        ("# TYPE a novelty\n", "line 1 is no valid HELP or TYPE: '# TYPE a novelty'"),
        ("# HELP\n", "line 1 is no valid HELP or TYPE: '# HELP'"),
        ("# HELP a \\q\n", "line 1 is no valid HELP or TYPE: '# HELP a \\\\q'"),
        ("#HELP a b\n", "line 1 is no valid HELP or TYPE: '#HELP a b'"),
        ("# HELP a b\n# HELP a b\n", "there is a second HELP a"),
        ("# TYPE a gauge\n# TYPE a gauge\n", "there is a second TYPE a"),
        ("a 1\nb 1\na 2\n", "what is said of a is scattered over the file"),
        ('a{x="1"} 1\na{x="1"} 2\n', "a has two samples with the labels {'x': '1'}"),
        ('a{x="1",y="2"} 1\na{y="2",x="1"} 1\n', "a has two samples with the labels {'x': '1', 'y': '2'}"),
        ("a 1\na NaN\n", "a has two samples with the labels {}"),
        ('# TYPE a summary\na{quantile="median"} 1\n', "a has the label quantile with no number in it"),
        ('# TYPE a histogram\na_bucket{le="much"} 1\n', "a_bucket has the label le with no number in it"),
        ("<html>\x1b[31m</html>\n", "line 1 is no valid sample: '<html>\N{REPLACEMENT CHARACTER}[31m</html>'"),
        ("x" * 10_240 + "\n", "line 1 is no valid sample: '" + "x" * 80 + "…'"),
    ],
)  # fmt: skip
def test_what_is_no_exposition_is_refused(text: str, problem: str) -> None:
    """In one line that says where and how: node_exporter would refuse the whole file."""
    assert check(text).failure() == problem
    assert problem.isprintable()


def test_a_label_that_is_there_twice_is_refused() -> None:
    """prometheus_client says so in its own words."""
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
"Lines that are each sound, and depend on what came before: which description belongs to which metric, and whether it is too late."


def test_no_short_exposition_is_accepted_that_promtool_refuses(
    promtool: Callable[[str], tuple[int, str]],
) -> None:
    """All texts of up to three of the lines above, each about a metric of its own; one call of promtool takes all that were accepted."""
    texts = (
        "".join(lines) for length in range(1, 4) for lines in itertools.permutations(LINES, length)
    )
    accepted = [text for text in texts if not isinstance(check(text), Failure)]
    assert len(accepted) > 500
    status, said = promtool(
        "".join(text.replace("M", f"m{number}") for number, text in enumerate(accepted))
    )
    assert status != PARSE_ERROR, said


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
    """Returns a valid exposition after a few slips: pieces put in, dropped or exchanged, lines moved."""
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


@given(mutated() | st.text())
@settings(max_examples=300)
def test_the_check_comes_to_an_end_in_one_line(text: str) -> None:
    """It never raises, whatever the text; a refusal is one printable line, and what it accepts prometheus_client reads, each series once."""
    checked = check(text)
    if isinstance(checked, Failure):
        assert checked.failure()
        assert checked.failure().isprintable()
        assert len(checked.failure()) < 400
        return
    read = Counter(
        (sample.name, frozenset(sample.labels.items()))
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
    )
    assert set(read.values()) <= {1}
    assert {name for name, _ in read} <= set(checked.unwrap())


@given(mutated().filter(lambda text: not isinstance(check(text), Failure)))
@settings(max_examples=80, suppress_health_check=[HealthCheck.filter_too_much])
def test_no_exposition_is_accepted_that_promtool_refuses(
    promtool: Callable[[str], tuple[int, str]], text: str
) -> None:
    """The check is as strict as Prometheus' own parser: what passes it cannot spoil a whole file."""
    status, said = promtool(text)
    assert status != PARSE_ERROR, said
