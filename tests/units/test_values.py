from __future__ import annotations

import os
import subprocess
import time
from argparse import ArgumentTypeError

import pytest

from support.corpus import NAMES_FROM_HELL
from support.required import program
from tsfc.units import values

SOCKET = "/run/tailscale/tailscaled.sock"
SPANS = {
    *(
        "5",
        "5 s",
        "30s",
        "1min 30s",
        "1min30s",
        "1min 30",
        "999999999",
        "0.5",
        "0.5s",
        "1.5h",
        "1d1d",
        "2 weeks 3 days",
        "500ms",
        "1s ",
        "00005s",
        "0s 1s",
    ),
    *(
        "1usec",
        "1us",
        "1msec",
        "1ms",
        "1seconds",
        "1second",
        "1sec",
        "1s",
        "1minutes",
        "1minute",
        "1min",
        "1m",
    ),
    *("1hours", "1hour", "1hr", "1h", "1days", "1day", "1d", "1weeks", "1week", "1w"),
}
NO_SPANS = {
    *(
        "",
        " ",
        " 1s",
        "0",
        "0s",
        "0.0s",
        "00",
        "0s 0min",
        "0 0s",
        "-5s",
        "+5s",
        "5S",
        "1e3s",
        "0x5s",
        "1.s",
        ".5s",
        "s",
        "1y",
        "1M",
        "1month",
        "infinity",
    ),
    *(
        "5s\n",
        "5s\nOnCalendar=daily",
        "5\t",
        "5s;",
        "five",
        "\N{ARABIC-INDIC DIGIT THREE}s",
        "5s5x",
        "5 5",
        "1000000000s",
        "%",
        "1s,2s",
        "5\u00a0s",
    ),
}
PATHS = {
    "/opt/tsfc",
    "/a",
    "/nix/store/0-a+b=c,d@e~f_g-0.1",
    "/home/me/.local/venv",
    "/opt/.a",
    "/a/b.c",
}
NO_PATHS = {
    *(
        "",
        "/",
        "opt/tsfc",
        "./a",
        "~/a",
        "/a/",
        "//a",
        "/a//b",
        "/a/..",
        "/../a",
        "/a/./b",
        "/a b",
        "/a%n",
        "/a$b",
        "/a:b",
        '/a"b',
        "/a\\b",
    ),
    *("/é", "/a\n", "/a\0"),
}
METRICS_PATHS = {
    "/var/lib/alloy/a.prom",
    "/srv/metrics/a.prom",
    "/run/alloy/a.prom",
    "/var/run/alloy/a.prom",
    "/var/lib/private/alloy/a.prom",
    "/var/lib/tailscale-metrics/a.prom",
    "/data/a.prom",
    "/etcetera/a.prom",
    "/a/b/c/d.prom",
    "/srv/.a/b.prom",
    "/homes/a.prom",
    "/run/users/a.prom",
}
NO_METRICS_PATHS = {
    *(
        "/a.prom",
        "a.prom",
        "lib/a.prom",
        "-",
        "/var/lib/a.txt",
        "/var/lib/a.prom.tmp",
        "/var/lib/aprom",
        "/var/lib/.prom",
        "/var/lib/a.prom/",
    ),
    *(
        "/var/lib/a.PROM",
        "/var//a.prom",
        "/var/../a.prom",
        "/var/lib/a b.prom",
        "/var/lib/%n.prom",
        "/var/lib/a.prom\n",
        "/var/lib/a:b.prom",
    ),
    "/var/lib/é.prom",
}
SOCKETS = {
    SOCKET,
    f"/var{SOCKET}",
    "/run/tailscale/work.sock",
    "/run/tailscale-work/a.sock",
    "/run/tailscaled@work/a",
    "/run/tailscale/work/a.sock",
}
NO_SOCKETS = {
    "",
    "/a.sock",
    "a.sock",
    "/run/a.sock/",
    "/run/../a.sock",
    "/run/a b.sock",
    "/run/%t.sock",
    "@abstract",
    "/run/a:b",
    "/run/a.sock\n",
}
SERVICES = {"tailscaled.service", "tailscaled@a.service", "a:b_c-d.e.service", "0.service"}
NO_SERVICES = {
    *(
        "",
        "tailscaled",
        ".service",
        "tailscaled.timer",
        "-a.service",
        "@a.service",
        "a b.service",
        "a.service b.service",
        "../a.service",
        "a/b.service",
    ),
    *("%i.service", "a.service\n", "é.service", "a.service;", "$(a).service", "a\\x2d.service"),
}
SECONDS = {"0", "600", "999999999", "007", "10min", "1h 30min", "1.5min"}
NO_SECONDS = {
    "",
    "-1",
    "+1",
    "1.5",
    "1ms",
    "999999w",
    "1000000000",
    " 1",
    "1\n",
    "٣",
    "0x1",
    "1_000",
    "ten",
}
CAPTURE_PATHS = {
    f"{path.removesuffix('.prom')}.ndjson{packed}"
    for path in METRICS_PATHS
    for packed in ("", ".gz", ".zst")
}
NO_CAPTURE_PATHS = {
    *(f"{path}.ndjson" for path in ("", "a", "/a", "/a/../b", "/a b/c", "/a/%h")),
    "/a/b.ndjson.bz2",
    "/a/b.ndjson.gz.zst",
    "/a/b.prom",
    "/a/b.ndjson\n",
}
GOOD = {
    values.time_span: SPANS,
    values.absolute_path: PATHS,
    values.metrics_path: METRICS_PATHS,
    values.capture_path: CAPTURE_PATHS,
    values.socket_path: SOCKETS,
    values.service_name: SERVICES,
    values.seconds: SECONDS,
    values.policy: {"documented", "guarded"},
    values.budget: {"0", "6", "10", "19", "20", "24"},
    values.remedies: {"restart", "other-port", "restart,other-port", "other-port,restart"},
    values.argument: {text for text in NAMES_FROM_HELL.values() if "\0" not in text},
}
BAD = {
    values.time_span: (NO_SPANS, "a time span longer than 0"),
    values.absolute_path: (NO_PATHS, "an absolute path"),
    values.metrics_path: (NO_METRICS_PATHS, 'an absolute path of a ".prom" file in a directory'),
    values.capture_path: (NO_CAPTURE_PATHS, 'an absolute path of a ".ndjson", ".ndjson.gz" or'),
    values.socket_path: (NO_SOCKETS, "an absolute path of a socket in a directory"),
    values.service_name: (NO_SERVICES, 'a service name that ends in ".service"'),
    values.seconds: (NO_SECONDS, "a time span of whole seconds up to 999999999"),
    values.policy: ({"", "none", "guarded\n", "Guarded"}, "a policy: documented or guarded"),
    values.budget: (
        {"", "-1", "25", "06", "1.5", "6\n", "\N{ARABIC-INDIC DIGIT THREE}"},
        "a whole number from 0 to 24",
    ),
    values.remedies: (
        {"", ",", "restart,", "restart,restart", "rebind", "restart, other-port", "restart\n"},
        "restart, other-port, or restart,other-port",
    ),
    values.argument: ({"\udcff", "a\udc80b"}, "UTF-8"),
}


def accepts(value: values.Value, text: str) -> bool:
    try:
        return value(text) == text
    except ArgumentTypeError:
        return False


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(value, text, id=f"{value.__name__}-{text!a}")
        for value, texts in GOOD.items()
        for text in sorted(texts)
    ],
)
def test_a_valid_text_is_accepted_unchanged(value: values.Value, text: str) -> None:
    assert value(text) == text


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        pytest.param(value, text, expected, id=f"{value.__name__}-{text!a}")
        for value, (texts, expected) in BAD.items()
        for text in sorted(texts)
    ],
)
def test_an_invalid_text_is_rejected_with_what_is_expected(
    value: values.Value, text: str, expected: str
) -> None:
    with pytest.raises(ArgumentTypeError) as error:
        value(text)
    assert str(error.value).startswith(f"{text!r} is not {expected}")
    assert str(error.value).isprintable()


LONG = 100_000
PATHOLOGICAL = {
    values.time_span: {
        *(
            "1s" * LONG + "x",
            "1" + " " * LONG,
            "1s" + " " * LONG + "x",
            "0s " * LONG,
            "1" * LONG,
            "0" * LONG + "x",
            " " * LONG,
            "1.1" * LONG,
        ),
        *("1m" * LONG + "in.", "1 m" * LONG + "x", "0." * LONG),
    },
    values.absolute_path: {
        "/a" * LONG + "/",
        "/" * LONG,
        "/." * LONG,
        "/" + "." * LONG,
        "/" + "a" * LONG + "!",
        "/.a" * LONG + "%",
    },
    values.metrics_path: {
        *(
            "/a" * LONG,
            "/a" * LONG + ".prom/",
            "/a.prom" * LONG + "/",
            "/" + ".prom" * LONG + "!",
            "/a/" + "." * LONG,
            "/a/" + "a" * LONG,
        ),
        "/.a" * LONG + "!",
    },
    values.capture_path: {
        "/a" * LONG,
        "/a" * LONG + ".ndjson/",
        "/a.ndjson" * LONG + "/",
        "/" + ".ndjson.gz" * LONG + "!",
        "/a/" + "a" * LONG,
        "/.a" * LONG + "!",
    },
    values.socket_path: {"/a" * LONG + "/", "/" * LONG, "/." * LONG, "/a" * LONG + "!"},
    values.service_name: {
        "a" * LONG,
        ".service" * LONG + "!",
        "a" + ".service" * LONG + ".",
        "@" * LONG,
    },
    values.seconds: {"1" * LONG, "0" * LONG + "x"},
}


@pytest.mark.parametrize(
    ("value", "texts"),
    [pytest.param(value, texts, id=value.__name__) for value, texts in PATHOLOGICAL.items()],
)
def test_a_long_text_is_rejected_quickly(value: values.Value, texts: set[str]) -> None:
    """No pattern needs exponential time."""
    for text in texts:
        started = time.process_time()
        assert not accepts(value, text)
        assert time.process_time() - started < 1, text[:20]


EXTREME_SPANS = {
    *(
        "999999999us",
        "999999999s",
        "999999999d",
        "999999999w",
        "9999999w",
        "999999w",
        " ".join(["999999999w"] * 4),
        " ".join(["9999999w"] * 4),
    ),
    *(
        "999999999h",
        " ".join(["999999999s"] * 100),
        "0.1us",
        "0.0001us",
        "0.000000001s",
        "0.000000001w",
        "0.999999999us",
        "0.001ms",
        "0.0001ms",
        "0.9us 0.9us",
    ),
    *("0.5ms", "999999999.999999999w", "1us" * 1000, "0.1min", "0.1h", "000000000.1us"),
}


@pytest.mark.parametrize(
    "text",
    [text for text in sorted(SPANS | NO_SPANS | EXTREME_SPANS) if accepts(values.time_span, text)],
)
def test_systemd_accepts_each_time_span_that_is_accepted_here(text: str) -> None:
    """It is also longer than 0 there: systemd refuses a timer that never elapses."""
    result = subprocess.run(
        (program("systemd-analyze", "systemd"), "timespan", text),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert result.returncode == 0, result.stderr
    (microseconds,) = [
        line.partition(":")[2]
        for line in result.stdout.splitlines()
        if line.strip().startswith("μs:")
    ]
    assert int(microseconds) > 0
