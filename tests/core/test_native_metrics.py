from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure

from support.corpus import FIXTURES, damaged
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.families import duration
from tsfc.core.metrics.lint import check
from tsfc.core.native_metrics import OWN_PREFIX, up, validated

FIELD = FIXTURES / "field"
CAPTURED = (FIXTURES / "usermetrics.txt").read_bytes()
OWN = render((up(is_up=True), duration("native-metrics", 0.01)))


def test_tailscaleds_metrics_are_unchanged() -> None:
    """To the byte."""
    assert validated(CAPTURED).unwrap().encode() == CAPTURED


def test_each_sample_gets_the_labels() -> None:
    assert validated(b'a 1\nb{c="d"} 2', labels={"work": "yes"}).unwrap() == (
        'a{work="yes"} 1\nb{work="yes",c="d"} 2\n'
    )


def test_a_label_that_tailscaled_uses_is_an_error() -> None:
    """A name that no release has used so far is found only here."""
    assert validated(b'a{work="no"} 1\n', labels={"work": "yes"}).failure().detail == (
        "reading tailscaled's metrics, 15 bytes: a has the label work already; "
        "choose another name for --label"
    )


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param(b"a 1", "a 1\n", id="no-line-feed"),
        pytest.param(b"a 1\n", "a 1\n", id="line-feed"),
        pytest.param(b"a 1\n# end", "a 1\n# end\n", id="comment"),
        pytest.param('a{b="é"} 1'.encode(), 'a{b="é"} 1\n', id="utf-8"),
    ],
)
def test_a_missing_last_newline_is_added(raw: bytes, text: str) -> None:
    """So the job's own metrics can follow; nothing else is added."""
    assert validated(raw).unwrap() == text


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(b"\xff", "1 bytes: byte 0 is not UTF-8", id="byte"),
        pytest.param(CAPTURED[:100] + b"\xff", "101 bytes: byte 100 is not UTF-8", id="late-byte"),
        pytest.param(
            CAPTURED[: CAPTURED.index(b'inbound_bytes_total{path="derp"}') + 32],
            "bytes: line 15 is not a valid sample: 'tailscaled_inbound_bytes_total{path=\"derp\"}'",
            id="cut",
        ),
        pytest.param(b"a", "1 bytes: line 1 is not a valid sample: 'a'", id="half-line"),
        pytest.param(b"", " 0 bytes: it has no sample; run `tailscale metrics print`", id="empty"),
        pytest.param(b"\n", "1 bytes: it has no sample", id="blank"),
        pytest.param(b"# end\n", "bytes: it has no sample", id="comment"),
        pytest.param(
            b"# TYPE a gauge\n# HELP a Text.\n", "bytes: it has no sample", id="description"
        ),
        pytest.param(b"a 1 1795438440000\n", "bytes: line 1 has a timestamp", id="timestamp"),
        pytest.param(
            b"<html>\n</html>\n", "bytes: line 1 is not a valid sample: '<html>'", id="html"
        ),
        pytest.param(
            b"a 1\nb 1\na 2\n", "bytes: the lines of a are not in one block", id="scattered"
        ),
        pytest.param(
            CAPTURED + CAPTURED,
            "bytes: the lines of tailscaled_advertised_routes are not in one block",
            id="twice",
        ),
        pytest.param(
            b"failed to connect to local tailscaled\n",
            "bytes: line 1 is not a valid sample",
            id="text",
        ),
        pytest.param(b"access denied\x1b[0m\n", "\N{REPLACEMENT CHARACTER}[0m'", id="escape"),
        pytest.param(
            b"tailscale_native_metrics_up 1\n",
            f"it contains a metric {OWN_PREFIX}*, which tsfc writes",
            id="ours",
        ),
        pytest.param(
            b"a 1\ntailscale_native_metrics_duration_seconds 1\n",
            f"it contains a metric {OWN_PREFIX}*, which tsfc writes",
            id="ours-too",
        ),
        pytest.param(
            OWN.encode(), f"it contains a metric {OWN_PREFIX}*, which tsfc writes", id="our-file"
        ),
    ],
)
def test_what_node_exporter_rejects_or_has_no_sample_is_rejected(raw: bytes, problem: str) -> None:
    """In one printable line: what was read, what is wrong and what to do."""
    detail = validated(raw).failure().detail
    assert problem in detail
    assert detail.startswith(f"reading tailscaled's metrics, {len(raw)} bytes: ")
    assert detail.isprintable()


@pytest.mark.parametrize("name", ["1102", "180", "debug", "openmetrics"])
def test_metrics_of_each_release_are_unchanged(name: str) -> None:
    """OpenMetrics only by its `# EOF`, a comment to node_exporter."""
    raw = (FIELD / f"metrics-{name}.txt").read_bytes()
    assert validated(raw).unwrap().encode() == raw


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("html", "line 1 is not a valid sample: '<html>502 Bad Gateway</html>'"),
        ("locale", "line 2 is not a valid sample: 'a{type=\"sat\"} 0,000000e+00'"),
        ("trailing-space", "line 2 is not a valid sample: 'tailscaled_advertised_routes 0"),
        ("unset-label", "line 2 is not a valid sample: 'stun_requests{=\"read_error\"} 3'"),
    ],
)
def test_invalid_metrics_are_rejected_with_the_line(name: str, line: str) -> None:
    """node_exporter rejects them, too: it reads a timestamp after the space."""
    assert line in validated((FIELD / f"metrics-{name}.txt").read_bytes()).failure().detail


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"# TYPE tailscale_native_metrics_up gauge\n", id="type"),
        pytest.param(b"# HELP tailscale_native_metrics_up Text.\n", id="help"),
        pytest.param(b"# TYPE tailscale_native_metrics_duration_seconds counter\n", id="duration"),
    ],
)
def test_help_or_type_of_an_own_metric_is_rejected(raw: bytes) -> None:
    """The job's own metrics follow; a second HELP or TYPE would invalidate the file."""
    assert isinstance(validated(raw), Failure)


@given(damaged(CAPTURED) | st.binary())
def test_own_metrics_can_follow_what_is_accepted(raw: bytes) -> None:
    """Both together are a valid exposition; a rejection is one printable line."""
    result = validated(raw)
    if isinstance(result, Failure):
        assert result.failure().detail.isprintable()
    else:
        assert check(result.unwrap() + OWN).unwrap()


@pytest.mark.parametrize(("is_up", "value"), [(True, "1.0"), (False, "0.0")])
def test_up_is_one_gauge(*, is_up: bool, value: str) -> None:
    assert render([up(is_up=is_up)]) == (
        "# HELP tailscale_native_metrics_up "
        "Whether tailscaled's own metrics could be read (1) or not (0).\n"
        f"# TYPE tailscale_native_metrics_up gauge\ntailscale_native_metrics_up {value}\n"
    )
