from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure

from support.corpus import FIXTURES, damaged
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.families import duration
from tsfc.core.metrics.lint import check
from tsfc.core.native_metrics import OWN_PREFIX, checked, up

CAPTURED = (FIXTURES / "usermetrics.txt").read_bytes()
OURS = render((up(is_up=True), duration("native-metrics", 0.01)))


def test_what_tailscaled_says_is_unchanged() -> None:
    """To the byte: it is tailscaled's to say."""
    assert checked(CAPTURED).unwrap().encode() == CAPTURED


@pytest.mark.parametrize(
    ("raw", "text"),
    [pytest.param(b"", "", id="empty"), pytest.param(b"\n", "\n", id="blank"), pytest.param(b"a 1", "a 1\n", id="no-line-feed"), pytest.param(b"a 1\n", "a 1\n", id="line-feed"), pytest.param(b"# end", "# end\n", id="comment"), pytest.param('a{b="é"} 1'.encode(), 'a{b="é"} 1\n', id="utf-8")],
)  # fmt: skip
def test_the_last_line_is_ended(raw: bytes, text: str) -> None:
    """So that ours can follow; nothing else is added."""
    assert checked(raw).unwrap() == text


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(b"\xff", "1 bytes: byte 0 is not UTF-8", id="byte"),
        pytest.param(CAPTURED[:100] + b"\xff", "101 bytes: byte 100 is not UTF-8", id="late-byte"),
        pytest.param(
            CAPTURED[: CAPTURED.index(b'inbound_bytes_total{path="derp"}') + 32],
            "bytes: line 15 is no valid sample: 'tailscaled_inbound_bytes_total{path=\"derp\"}'",
            id="cut",
        ),
        pytest.param(b"a", "1 bytes: line 1 is no valid sample: 'a'", id="half-line"),
        pytest.param(b"a 1 1795438440000\n", "bytes: line 1 has a timestamp", id="timestamp"),
        pytest.param(b"<html>\n</html>\n", "bytes: line 1 is no valid sample: '<html>'", id="html"),
        pytest.param(b"a 1\nb 1\na 2\n", "bytes: what is said of a is scattered", id="scattered"),
        pytest.param(
            CAPTURED + CAPTURED,
            "bytes: what is said of tailscaled_advertised_routes is scattered",
            id="twice",
        ),
        pytest.param(
            b"failed to connect to local tailscaled\n",
            "bytes: line 1 is no valid sample",
            id="text",
        ),
        pytest.param(b"access denied\x1b[0m\n", "\N{REPLACEMENT CHARACTER}[0m'", id="escape"),
        pytest.param(
            b"tailscale_native_metrics_up 1\n",
            f"it has a metric {OWN_PREFIX}*, which is tsfc's",
            id="ours",
        ),
        pytest.param(
            b"a 1\ntailscale_native_metrics_duration_seconds 1\n",
            f"it has a metric {OWN_PREFIX}*, which is tsfc's",
            id="ours-too",
        ),
        pytest.param(
            OURS.encode(), f"it has a metric {OWN_PREFIX}*, which is tsfc's", id="our-file"
        ),
    ],
)
def test_what_node_exporter_would_refuse_is_refused(raw: bytes, problem: str) -> None:
    """In one printable line that says what was read, what is wrong, and what to do."""
    detail = checked(raw).failure().detail
    assert problem in detail
    assert detail.startswith(f"reading tailscaled's metrics, {len(raw)} bytes: ")
    assert detail.isprintable()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"# TYPE tailscale_native_metrics_up gauge\n", id="type"),
        pytest.param(b"# HELP tailscale_native_metrics_up Text.\n", id="help"),
        pytest.param(b"# TYPE tailscale_native_metrics_duration_seconds counter\n", id="duration"),
    ],
)
def test_a_description_of_ours_is_refused_without_a_sample_too(raw: bytes) -> None:
    """Ours follows it, and a second HELP or TYPE spoils the file."""
    assert isinstance(checked(raw), Failure)


@given(damaged(CAPTURED) | st.binary())
def test_what_is_accepted_can_be_followed_by_ours(raw: bytes) -> None:
    """The two together are one exposition, whatever came from tailscaled; else there is one printable line."""
    read = checked(raw)
    if isinstance(read, Failure):
        assert read.failure().detail.isprintable()
    else:
        assert check(read.unwrap() + OURS).unwrap()


@pytest.mark.parametrize(("is_up", "value"), [(True, "1.0"), (False, "0.0")])
def test_up_says_whether_there_are_any(*, is_up: bool, value: str) -> None:
    """With HELP and TYPE."""
    assert render([up(is_up=is_up)]) == (
        "# HELP tailscale_native_metrics_up Whether tailscaled gave its own metrics (1) or could not be asked for them (0).\n"
        f"# TYPE tailscale_native_metrics_up gauge\ntailscale_native_metrics_up {value}\n"
    )
