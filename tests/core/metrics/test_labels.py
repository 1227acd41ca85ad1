from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from support.corpus import FIXTURES
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.families import Family, Kind, Sample, gauge
from tsfc.core.metrics.labels import OF_SERIES, VALUE_LIMIT, add, add_to_text, problem
from tsfc.core.metrics.lint import check

NATIVE = (FIXTURES / "usermetrics.txt").read_text()
EXPOSITIONS = sorted(FIXTURES.glob("*.prom"))
NAMES = st.from_regex("[a-zA-Z_][a-zA-Z0-9_]{0,9}", fullmatch=True)
LABELS = st.dictionaries(NAMES, st.text() | st.text('\\"{}=,n')).map(
    lambda labels: {name: value for name, value in labels.items() if problem(name, value) is None}
)


def parsed(text: str) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("tailscaled", "work"), ("_", "é {}=,"), ("A_9", 'a\\"b'), ("x", "a" * 1000)],
)
def test_a_name_and_a_printable_value_are_a_label(name: str, value: str) -> None:
    assert problem(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        pytest.param("", "a", "the name must be letters", id="no name"),
        pytest.param("9a", "a", "the name must be letters", id="digit"),
        pytest.param("a-b", "a", "the name must be letters", id="dash"),
        pytest.param("a:b", "a", "the name must be letters", id="colon"),
        pytest.param("é", "a", "the name must be letters", id="not ASCII"),
        pytest.param("a\n", "a", "the name must be letters", id="newline"),
        pytest.param("__name__", "a", "Prometheus reserves names that begin with __", id="name"),
        pytest.param("peer", "a", "series of the jobs have a label peer already", id="peer"),
        pytest.param("le", "1", "series of the jobs have a label le already", id="bucket"),
        pytest.param("instance", "a", "Prometheus or the alert rules set the label", id="instance"),
        pytest.param("unit", "a", "Prometheus or the alert rules set the label", id="unit"),
        pytest.param("a", "", "the value is empty, which means no label", id="no value"),
        pytest.param("a", "b\nc", "the value must be printable", id="two lines"),
        pytest.param("a", "\udcff", "the value must be printable", id="not UTF-8"),
        pytest.param("a", "b" * (VALUE_LIMIT + 1), "at most 1000 characters", id="long"),
    ],
)
def test_what_cannot_be_added_is_no_label(name: str, value: str, says: str) -> None:
    assert says in (problem(name, value) or "")


def test_no_label_of_the_jobs_series_can_be_added() -> None:
    """Neither those of the jobs themselves nor those of tailscaled."""
    text = "".join(path.read_text() for path in EXPOSITIONS)
    assert set(re.findall(r'([a-z_]+)="', text)) <= OF_SERIES


def test_every_sample_of_a_family_gets_the_labels() -> None:
    """Also one without labels; without labels to add, the families stay as they are."""
    families = (
        gauge("a", "A.", 1),
        Family("b_total", Kind.COUNTER, "B.", (Sample({"peer": "x"}, 2), Sample({"peer": "y"}, 3))),
        Family("c", Kind.GAUGE, "C.", ()),
    )
    assert [
        (family.name, family.kind, family.help, family.samples)
        for family in add(families, {"work": "yes"})
    ] == [
        ("a", Kind.GAUGE, "A.", (Sample({"work": "yes"}, 1),)),
        (
            "b_total",
            Kind.COUNTER,
            "B.",
            (Sample({"peer": "x", "work": "yes"}, 2), Sample({"peer": "y", "work": "yes"}, 3)),
        ),
        ("c", Kind.GAUGE, "C.", ()),
    ]
    assert tuple(add(families, {})) == families


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("a 1\n", 'a{w="x"} 1\n', id="no labels"),
        pytest.param("a{} 1\n", 'a{w="x"} 1\n', id="empty labels"),
        pytest.param('a{b="c"} 1\n', 'a{w="x",b="c"} 1\n', id="a label"),
        pytest.param('a{b="c",} 1\n', 'a{w="x",b="c",} 1\n', id="comma"),
        pytest.param(
            'a{b="}",c="\\" 1"}\t+Inf\n', 'a{w="x",b="}",c="\\" 1"}\t+Inf\n', id="braces in a value"
        ),
        pytest.param(
            'a{b="w=\\"x\\",w="} 1\n', 'a{w="x",b="w=\\"x\\",w="} 1\n', id="label in a value"
        ),
        pytest.param("a 12345678901234567890\n", 'a{w="x"} 12345678901234567890\n', id="large"),
        pytest.param(
            "# HELP a A.\n# TYPE a counter\n\n# a 1\na 1",
            '# HELP a A.\n# TYPE a counter\n\n# a 1\na{w="x"} 1',
            id="comments",
        ),
    ],
)
def test_only_samples_of_an_exposition_change(text: str, expected: str) -> None:
    assert add_to_text(text, {"w": "x"}).unwrap() == expected


def test_a_sample_that_has_the_label_fails() -> None:
    """The message names the metric."""
    text = 'a 1\nb{zone="x",work="y"} 1\n'
    assert (
        add_to_text(text, {"work": "no", "zone": "b"}).failure() == "b has the label work already"
    )


@pytest.mark.parametrize("path", EXPOSITIONS, ids=lambda path: path.name)
def test_every_sample_of_a_file_gets_the_labels(path: Path) -> None:
    text, labels = path.read_text(), {"work": "yes", "zone": 'a"b'}
    changed = add_to_text(text, labels).unwrap()
    assert parsed(changed) == [
        (name, {**before, **labels}, value) for name, before, value in parsed(text)
    ]
    assert check(changed) == check(text)


@given(LABELS)
def test_parsers_read_any_labels_back(labels: dict[str, str]) -> None:
    text = render([Family("b", Kind.GAUGE, "B.", (Sample({"peer": 'x"{}\\'}, 2),))])
    changed = add_to_text(text, labels).unwrap()
    assert parsed(changed) == [
        (name, {**before, **labels}, value) for name, before, value in parsed(text)
    ]
    assert check(changed) == check(text)


@given(LABELS)
def test_families_and_text_get_the_same_labels(labels: dict[str, str]) -> None:
    families = (gauge("a", "A.", 1), Family("b", Kind.GAUGE, "B.", (Sample({"peer": "x"}, 2),)))
    assert parsed(add_to_text(render(families), labels).unwrap()) == parsed(
        render(add(families, labels))
    )


def test_promtool_accepts_the_labels(promtool: Callable[[str], tuple[int, str]]) -> None:
    changed = add_to_text(NATIVE, {"tailscaled": 'a\\b "c" é', "zone": "1"}).unwrap()
    assert promtool(changed) == (0, "")
