from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.resources import files

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Success

from support.corpus import FIXTURES, NAMES_FROM_HELL
from support.required import program
from tsfc.cli import main as cli
from tsfc.shell import defaults
from tsfc.units.table import (
    Installation,
    Value,
    checked,
    choices,
    clash,
    default_jobs,
    installation,
    read_table,
)

TABLE = read_table(files("tsfc.units").joinpath("units.json").read_bytes())
GOLDEN = FIXTURES / "units"
PACKAGE = "/opt/tsfc"
SOCKET = "/run/tailscale/tailscaled.sock"
DEFAULT_JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")
JOBS = (*DEFAULT_JOBS, "capture")
INTERVALS = {
    "exporter": "30s",
    "native-metrics": "15s",
    "keepalive": "10s",
    "watchdog": "1min",
    "capture": "1min",
}
CAPTURE = "/var/lib/tailscale-capture/status.ndjson.zst"
METRICS = {
    "exporter": "/var/lib/alloy/tailscale-peers.prom",
    "native-metrics": "/var/lib/alloy/tailscale-native.prom",
    "watchdog": "/var/lib/alloy/tailscale-watchdog.prom",
}
COMMAND = {
    "exporter": (
        f"{PACKAGE}/bin/tsfc",
        "exporter",
        "--socket",
        SOCKET,
        "--metrics-path",
        METRICS["exporter"],
    ),
    "native-metrics": (
        f"{PACKAGE}/bin/tsfc",
        "native-metrics",
        "--socket",
        SOCKET,
        "--metrics-path",
        METRICS["native-metrics"],
    ),
    "keepalive": (f"{PACKAGE}/bin/tsfc", "keepalive", "--socket", SOCKET),
    "watchdog": (
        *(
            f"{PACKAGE}/bin/tsfc",
            "watchdog",
            "--restart-socket",
            "/run/tailscale-watchdog/restart.sock",
            "--socket",
            SOCKET,
        ),
        *(
            "--max-relay-seconds",
            "600",
            "--cooldown-seconds",
            "600",
            "--unit",
            "tailscaled.service",
            "--metrics-path",
            METRICS["watchdog"],
        ),
    ),
    "capture": (
        f"{PACKAGE}/bin/tsfc",
        "capture",
        "--max-size",
        "64M",
        "--keep",
        "5",
        "--socket",
        SOCKET,
        "--output",
        CAPTURE,
    ),
}


def made(job: str, chosen: Mapping[str, Value] = {}) -> Installation:
    """What there is for a job where this was chosen, and the package."""
    return installation(
        TABLE,
        job,
        {choice.name: choice.default for choice in choices(TABLE, job)}
        | {"package": PACKAGE}
        | dict(chosen),
    )


UNITS = {name: text for job in TABLE.jobs for name, text in made(job).units.items()}


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_the_golden_one_to_the_byte(name: str) -> None:
    """That of a job for which nothing was chosen; `make golden` writes it anew."""
    path = GOLDEN / name
    if os.environ.get("TSFC_WRITE_GOLDEN"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(UNITS[name], encoding="utf-8", newline="")
    assert path.read_bytes().decode() == UNITS[name]


def test_no_golden_unit_is_left_behind() -> None:
    """What nothing is compared with proves nothing."""
    assert {path.name for path in GOLDEN.iterdir()} == set(UNITS)


def test_beside_the_units_there_are_the_directories_of_what_they_write_and_what_enables_them() -> (
    None
):
    """A service is started by its timer, or by its socket, and so nothing else wants it. Only root may look at a capture."""
    directory = ("d /var/lib/alloy - - - -",)
    directories = {
        "exporter": directory,
        "native-metrics": directory,
        "keepalive": (),
        "watchdog": directory,
    }
    assert {job: made(job).tmpfiles for job in JOBS} == directories | {
        "capture": ("d /var/lib/tailscale-capture :0700 - - -",)
    }
    timers = {job: {f"tailscale-{job}.timer": "timers.target"} for job in JOBS}
    timers["watchdog"]["tailscale-watchdog-restart.socket"] = "sockets.target"
    assert {job: made(job).wants for job in JOBS} == timers


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_bound_to_nothing(job: str) -> None:
    """Tailscaled stops and starts, by the watchdog's own doing: only the order is asked for."""
    text = made(job).units[f"tailscale-{job}.service"]
    assert "After=tailscaled.service\n" in text
    assert not [
        line
        for line in text.splitlines()
        if line.startswith(("Requires=", "Requisite=", "BindsTo=", "PartOf=", "Wants="))
    ]


def seen(job: str, chosen: Mapping[str, Value]) -> Counter[str]:
    """All lines that there are for a job, each behind the kind of its file; a command line as its arguments."""
    there = made(job, chosen)
    lines = Counter(f"tmpfiles: {line}" for line in there.tmpfiles)
    for name, text in there.units.items():
        kind = name.removeprefix(f"tailscale-{job}").removeprefix(".")
        for line in text.splitlines():
            shown = (
                [f"argument {argument}" for argument in argv(line)]
                if line.startswith("ExecStart=")
                else [line]
            )
            lines.update(f"{kind}: {part}" for part in shown)
    return lines


def adds_file(flag: str, path: str, directory: str, mode: str = "-") -> set[str]:
    sandbox = (
        "CapabilityBoundingSet=CAP_DAC_OVERRIDE",
        "AmbientCapabilities=CAP_DAC_OVERRIDE",
        f"BindPaths=-{directory}",
    )
    lines = (f"argument {flag}", f"argument {path}", *sandbox)
    return {f"tmpfiles: d {directory} {mode} - - -", *(f"service: {line}" for line in lines)}


def adds_metrics(path: str, directory: str) -> set[str]:
    return adds_file("--metrics-path", path, directory)


def shared_contributions(job: str) -> Iterator[tuple[str, Value, set[str], set[str]]]:
    """For each option that jobs have in common: another value, the lines that go, and those that come."""
    interval = INTERVALS[job]
    yield (
        "package",
        "/opt/other",
        {f"service: argument {PACKAGE}/bin/tsfc"},
        {"service: argument /opt/other/bin/tsfc"},
    )
    yield (
        "tailscalePackage",
        "/opt/tailscale",
        set(),
        {"service: argument --tailscale", "service: argument /opt/tailscale/bin/tailscale"},
    )
    yield (
        *("socket", "/run/other/a.sock"),
        {f"service: argument {SOCKET}", "service: BindReadOnlyPaths=-/run/tailscale"},
        {"service: argument /run/other/a.sock", "service: BindReadOnlyPaths=-/run/other"},
    )
    yield (
        "visiblePaths",
        ("/home/a", "/b"),
        set(),
        {"service: BindReadOnlyPaths=-/home/a", "service: BindReadOnlyPaths=-/b"},
    )
    was, comes = (
        {f"timer: OnBootSec={span}", f"timer: OnUnitActiveSec={span}"}
        for span in (interval, "2h 1s")
    )
    yield "interval", "2h 1s", was, comes
    if job in METRICS:
        yield (
            "metricsPath",
            None,
            adds_metrics(METRICS[job], "/var/lib/alloy"),
            {"service: CapabilityBoundingSet="},
        )
    elif job == "keepalive":
        yield (
            "metricsPath",
            "/srv/metrics/a.prom",
            {"service: CapabilityBoundingSet="},
            adds_metrics("/srv/metrics/a.prom", "/srv/metrics"),
        )
    yield (
        "extraArgs",
        ("--timeout", "5 s"),
        set(),
        {"service: argument --timeout", "service: argument 5 s"},
    )


UNIT_LINES = (
    "service: argument {}",
    "-restart@.service: argument {}",
    "-restart@.service: Description=Restart of {} for tailscale-watchdog.service",
    "-restart.socket: Description=Requests of tailscale-watchdog.service for a restart of {}",
)
WATCHDOG_CONTRIBUTIONS: list[tuple[str, Value, set[str], set[str]]] = [
    (
        "excludePeers",
        ("nas", "my phone"),
        set(),
        {"service: argument --exclude-peer", "service: argument nas", "service: argument my phone"},
    ),
    ("dryRun", True, set(), {"service: argument --dry-run"}),
    (
        "unit",
        "other.service",
        {line.format("tailscaled.service") for line in UNIT_LINES},
        {line.format("other.service") for line in UNIT_LINES},
    ),
    ("maxRelaySeconds", "60", {"service: argument 600"}, {"service: argument 60"}),
    ("cooldownSeconds", 0, {"service: argument 600"}, {"service: argument 0"}),
]
CAPTURE_CONTRIBUTIONS: list[tuple[str, Value, set[str], set[str]]] = [
    (
        "output",
        None,
        adds_file("--output", CAPTURE, "/var/lib/tailscale-capture", ":0700"),
        {"service: CapabilityBoundingSet="},
    ),
    ("redact", True, set(), {"service: argument --redact"}),
]
CONTRIBUTIONS = [
    *((job, *contribution) for job in JOBS for contribution in shared_contributions(job)),
    *(("watchdog", *contribution) for contribution in WATCHDOG_CONTRIBUTIONS),
    *(("capture", *contribution) for contribution in CAPTURE_CONTRIBUTIONS),
]


@pytest.mark.parametrize(
    ("job", "option", "value", "gone", "come"),
    CONTRIBUTIONS,
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_an_option_changes_these_lines_and_no_others(
    job: str, option: str, value: Value, gone: set[str], come: set[str]
) -> None:
    before, after = seen(job, {}), seen(job, {option: value})
    assert (set(before - after), set(after - before)) == (gone, come)


def test_the_contribution_of_each_option_of_each_job_is_known() -> None:
    assert Counter((job, option) for job, option, *_ in CONTRIBUTIONS) == Counter(
        (job, choice.name) for job in TABLE.jobs for choice in choices(TABLE, job)
    )


ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "s": " ",
}
HEX = {"x": 2, "u": 4, "U": 8}


def argv(line: str) -> tuple[str, ...]:
    """The arguments that systemd takes a line for: "Quoting" in systemd.syntax(7), "Command Lines" in systemd.service(5).

    What would stand for something else (`%` and a letter, `$` and a name, `;`), or is no valid line, is an error.
    """
    name, _, command = line.partition("=")
    assert name == "ExecStart"
    assert not set(command) & set("\n\r\0"), "the line ends early"
    assert not command.endswith("\\"), "the next line is the same line"
    words: list[str] = []
    rest = command.strip(" \t")
    while rest:
        word, rest = _word(rest)
        words.append(word)
        rest = rest.lstrip(" \t")
    assert words[0][0] not in "@-:+!|", "a prefix"
    return (
        _unescaped(words[0], "%"),
        *(_unescaped(_unescaped(word, "%"), "$") for word in words[1:]),
    )


def _word(text: str) -> tuple[str, str]:
    """Returns a word, and what is behind it."""
    word, quote, at = "", "", 0
    assert text.split(maxsplit=1)[0] not in {";", "\\;"}, "the next command"
    while at < len(text) and (quote or text[at] not in " \t"):
        char = text[at]
        at += 1
        if char == "\\":
            escaped, at = _escape(text, at)
            word += escaped
        elif quote:
            word, quote = (word, "") if char == quote else (word + char, quote)
        elif char in "\"'":
            assert at == 1, "a quote inside of a word"
            quote = char
        else:
            word += char
    assert not quote, "a quote that is not closed"
    return word, text[at:]


def _escape(text: str, at: int) -> tuple[str, int]:
    """Returns what an escape stands for, whose backslash is before `at`, and where it ends."""
    if text[at] in ESCAPES:
        return ESCAPES[text[at]], at + 1
    digits = HEX[text[at]]
    number = int(text[at + 1 : at + 1 + digits], 16)
    assert number, "systemd takes no NUL"
    return chr(number), at + 1 + digits


def _unescaped(word: str, sign: str) -> str:
    parts = word.split(sign * 2)
    assert not any(sign in part for part in parts), f"{word} has a {sign} that stands for something"
    return sign.join(parts)


def command(text: str) -> tuple[str, ...]:
    """The arguments in the one command line of a unit."""
    (line,) = [line for line in text.split("\n") if line.startswith("ExecStart=")]
    return argv(line)


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        (r"/bin/a b  c", ("/bin/a", "b", "c")),
        (r"""/bin/a "b c" 'd "e"' "" """, ("/bin/a", "b c", 'd "e"', "")),
        (r"/bin/a \x41\u00e9\s\t\\ %%n $$HOME", ("/bin/a", "Aé \t\\", "%n", "$HOME")),
        (r'"/bin/a" "a\"b" "\U0001f369"', ("/bin/a", 'a"b', "\N{DOUGHNUT}")),
    ],
)
def test_the_parser_of_these_tests_reads_the_examples_of_the_manual(
    line: str, arguments: tuple[str, ...]
) -> None:
    assert argv(f"ExecStart={line}") == arguments


@pytest.mark.parametrize(
    "line",
    [
        "/bin/a %n",
        "/bin/a $HOME",
        "/bin/a ${HOME}",
        '/bin/a "b',
        "/bin/a ; /bin/b",
        "/bin/a \\",
        "/bin/a\nb",
        '/bin/a "\\u0000"',
    ],
)
def test_the_parser_of_these_tests_refuses_what_stands_for_something_else(line: str) -> None:
    with pytest.raises(AssertionError):
        argv(f"ExecStart={line}")


@pytest.mark.parametrize("job", JOBS)
def test_the_command_of_a_job_is_this_one(job: str) -> None:
    """And behind it come the arguments that were added."""
    assert command(made(job).units[f"tailscale-{job}.service"]) == COMMAND[job]
    assert command(made(job, {"extraArgs": ("--now", "7")}).units[f"tailscale-{job}.service"]) == (
        *COMMAND[job],
        "--now",
        "7",
    )


def test_the_helper_restarts_the_unit_by_a_shell_that_it_does_not_read_the_name_in() -> None:
    text = made("watchdog", {"unit": "tailscaled@a.service"}).units[
        "tailscale-watchdog-restart@.service"
    ]
    assert command(text) == (
        "/bin/sh",
        "-c",
        'systemctl restart "$0" && echo done',
        "tailscaled@a.service",
    )


HOSTILE = [
    *(text for text in NAMES_FROM_HELL.values() if "\0" not in text),
    *(
        "%",
        "%%",
        "%n",
        "%%n",
        "$",
        "$$",
        "$HOME",
        "${HOME}",
        "$0",
        "'",
        '"',
        "\\",
        "\\\\",
        "\\x41",
        "\\;",
        ";",
        "#",
        "-",
        "@",
        " ",
        "\t",
    ),
    *("{socket}", "{value}", "{job}", "{directory}", "{package}", "{unknown}", "{}", "{{value}}"),
    *("a\nExecStart=/bin/b", "\x7f\x85\x01", "\N{PILE OF POO}", "é" * 3),
]
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.text(st.sampled_from("%$\\\"'{} \n;vx0")),
)


@given(st.lists(TEXTS).map(tuple), st.lists(TEXTS).map(tuple))
def test_a_job_is_given_the_arguments_that_were_chosen(
    extra: tuple[str, ...], excluded: tuple[str, ...]
) -> None:
    """Whatever is in them, to the letter; and no text becomes a line of its own."""
    ours, were = made("keepalive", {"extraArgs": extra}).units, made("keepalive").units
    text = ours["tailscale-keepalive.service"]
    assert command(text) == (*COMMAND["keepalive"], *extra)
    assert text.count("\n") == were["tailscale-keepalive.service"].count("\n")
    text = made("watchdog", {"excludePeers": excluded, "extraArgs": extra}).units[
        "tailscale-watchdog.service"
    ]
    at = COMMAND["watchdog"].index("--unit")
    peers = tuple(part for name in excluded for part in ("--exclude-peer", name))
    assert command(text) == (*COMMAND["watchdog"][:at], *peers, *COMMAND["watchdog"][at:], *extra)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_hostile_text_stays_what_it_is(text: str) -> None:
    """Each of them, whatever Hypothesis happens to try."""
    assert (
        command(made("keepalive", {"extraArgs": (text,)}).units["tailscale-keepalive.service"])[-1]
        == text
    )


SPANS = {
    *(
        "5",
        "5 s",
        "30s",
        "1min 30s",
        "1min30s",
        "1min 30",
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
    "/srv/a.prom",
    "/run/alloy/a.prom",
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
SOCKETS = {SOCKET, "/run/a", "/srv/tailscale/a.sock", "/run/.a/b"}
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
HIDDEN = ("dev", "home", "proc", "root", "run/user", "sys", "tmp", "var/tmp")
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
SECONDS = {"0", "600", "999999999", "007"}
NO_SECONDS = {"", "-1", "+1", "1.5", "1s", "1000000000", " 1", "1\n", "٣", "0x1", "1_000", "ten"}
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
    "interval": SPANS,
    "package": PATHS,
    "tailscalePackage": PATHS,
    "visiblePaths": PATHS,
    "metricsPath": METRICS_PATHS,
    "output": CAPTURE_PATHS,
    "socket": SOCKETS,
    "unit": SERVICES,
    "maxRelaySeconds": SECONDS,
    "cooldownSeconds": SECONDS,
    "extraArgs": set(HOSTILE),
    "excludePeers": set(HOSTILE),
}
BAD = {
    "interval": (NO_SPANS, "a systemd time span longer than 0"),
    "package": (NO_PATHS, "an absolute path"),
    "metricsPath": (NO_METRICS_PATHS, 'the absolute path of a file that ends in ".prom"'),
    "output": (NO_CAPTURE_PATHS, 'the absolute path of a file that ends in ".ndjson"'),
    "socket": (NO_SOCKETS, "the absolute path of a socket"),
    "unit": (NO_SERVICES, 'the name of a service with its ".service"'),
    "maxRelaySeconds": (NO_SECONDS, "a whole number of seconds from 0 to 999999999"),
}


@pytest.mark.parametrize(
    ("option", "text"),
    [(option, text) for option, texts in GOOD.items() for text in sorted(texts)],
    ids=ascii,
)
def test_a_good_value_is_taken_as_it_is(option: str, text: str) -> None:
    assert checked(TABLE, option, text) == Success(text)


@pytest.mark.parametrize(
    ("option", "text"),
    [(option, text) for option, (texts, _) in BAD.items() for text in sorted(texts)],
    ids=ascii,
)
def test_a_bad_value_is_refused_with_what_it_has_to_be(option: str, text: str) -> None:
    problem = checked(TABLE, option, text).failure()
    assert problem.startswith(f"{text!r} is not {BAD[option][1]}")
    assert problem.isprintable()


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(
    ("option", "name"), [("metricsPath", "a.prom"), ("socket", "a.sock"), ("output", "a.ndjson")]
)
def test_a_path_that_the_sandbox_hides_is_refused_with_where_that_is(
    option: str, name: str, hidden: str
) -> None:
    """At any depth; a directory whose name only begins like that is none of them."""
    for text in (f"/{hidden}/{name}", f"/{hidden}/a/{name}"):
        assert checked(TABLE, option, text) == Failure(
            f"{text!r} is in /{hidden}, which the sandbox of the units hides; choose another place"
        )
    assert checked(TABLE, option, f"/{hidden}s/{name}") == Success(f"/{hidden}s/{name}")
    assert checked(TABLE, option, f"/srv/{hidden}/{name}") == Success(f"/srv/{hidden}/{name}")


def test_each_type_that_refuses_something_has_values_here() -> None:
    assert {TABLE.options[option].type for option in BAD} == {
        name for name, kind in TABLE.types.items() if kind.patterns
    }


LONG = 100_000
PATHOLOGICAL = {
    "interval": {
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
    "package": {
        "/a" * LONG + "/",
        "/" * LONG,
        "/." * LONG,
        "/" + "." * LONG,
        "/" + "a" * LONG + "!",
        "/.a" * LONG + "%",
    },
    "metricsPath": {
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
    "output": {
        "/a" * LONG,
        "/a" * LONG + ".ndjson/",
        "/a.ndjson" * LONG + "/",
        "/" + ".ndjson.gz" * LONG + "!",
        "/a/" + "a" * LONG,
        "/.a" * LONG + "!",
    },
    "socket": {"/a" * LONG + "/", "/" * LONG, "/." * LONG, "/a" * LONG + "!"},
    "unit": {"a" * LONG, ".service" * LONG + "!", "a" + ".service" * LONG + ".", "@" * LONG},
    "maxRelaySeconds": {"1" * LONG, "0" * LONG + "x"},
}


@pytest.mark.parametrize("option", PATHOLOGICAL)
def test_a_long_text_is_refused_at_once(option: str) -> None:
    """No pattern can be matched in so many ways that trying them all takes long."""
    for text in PATHOLOGICAL[option]:
        started = time.process_time()
        assert isinstance(checked(TABLE, option, text), Failure)
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
    [
        text
        for text in sorted(SPANS | NO_SPANS | EXTREME_SPANS)
        if isinstance(checked(TABLE, "interval", text), Success)
    ],
)
def test_systemd_takes_each_time_span_that_is_taken_here(text: str) -> None:
    """And it is longer than 0 there, too: a timer with another has no time to elapse at, and systemd refuses it."""
    command_line = (program("systemd-analyze", "systemd"), "timespan", text)
    asked = subprocess.run(
        command_line,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert asked.returncode == 0, asked.stderr
    (microseconds,) = [
        line.partition(":")[2]
        for line in asked.stdout.splitlines()
        if line.strip().startswith("μs:")
    ]
    assert int(microseconds) > 0


def test_two_jobs_do_not_write_one_file() -> None:
    """The file is named, and both jobs. Several that write none are no clash."""
    exporter, watchdog = {"metricsPath": "/a/b.prom"}, {"metricsPath": "/a/c.prom"}
    assert clash({}) is None
    assert clash({"exporter": exporter, "watchdog": watchdog}) is None
    assert (
        clash(
            {
                "exporter": {"metricsPath": None},
                "keepalive": {"metricsPath": None},
                "watchdog": watchdog,
            }
        )
        is None
    )
    said = clash(
        {
            "exporter": exporter,
            "keepalive": {"metricsPath": None},
            "native-metrics": watchdog,
            "watchdog": exporter,
        }
    )
    assert said == "exporter and watchdog both write /a/b.prom; give each job a file of its own"
    assert (
        clash(
            {
                job: {choice.name: choice.default for choice in TABLE.jobs[job].options}
                for job in TABLE.jobs
            }
        )
        is None
    )


def test_a_table_that_is_no_table_is_a_bug() -> None:
    """It is ours: nobody is told politely."""
    with pytest.raises(msgspec.ValidationError):
        read_table(b"{}")


def test_each_job_of_the_table_is_a_command_and_each_option_is_described() -> None:
    """One that is in no job is in the catalogue for nothing."""
    assert tuple(TABLE.jobs) == JOBS
    assert default_jobs(TABLE) == DEFAULT_JOBS
    assert set(TABLE.jobs) <= set(cli.COMMANDS)
    named = {choice.name for job in TABLE.jobs for choice in choices(TABLE, job)}
    assert named == set(TABLE.options)
    assert {option.type for option in TABLE.options.values()} == set(TABLE.types)
    for job in TABLE.jobs:
        names = [choice.name for choice in choices(TABLE, job)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("job", JOBS)
def test_each_default_is_a_value_that_may_be_chosen(job: str) -> None:
    for choice in choices(TABLE, job):
        match choice.default:
            case None | bool() | ():
                pass
            case default:
                assert checked(TABLE, choice.name, str(default)) == Success(str(default))


@pytest.mark.parametrize("job", JOBS)
def test_the_defaults_are_those_of_the_command_line(job: str) -> None:
    """The socket is the one behind the link that is `/var/run`: the sandbox hides `/var`."""
    parser = cli._command_parser(job)
    told = {choice.name: choice.default for choice in choices(TABLE, job)}
    paths = {
        "exporter": defaults.EXPORTER_PATH,
        "native-metrics": defaults.NATIVE_METRICS_PATH,
        "watchdog": defaults.WATCHDOG_PATH,
    }
    assert told.get("metricsPath") == paths.get(job) == parser.get_default("default_metrics_path")
    assert f"/var{told['socket']}" == defaults.SOCKET


def test_the_defaults_of_the_watchdog_are_those_of_its_command_line() -> None:
    parser = cli._command_parser("watchdog")
    told = {choice.name: choice.default for choice in TABLE.jobs["watchdog"].options}
    assert told["maxRelaySeconds"] == parser.get_default("max_relay_seconds") == 600
    assert told["cooldownSeconds"] == parser.get_default("cooldown_seconds") == 600
    assert told["excludePeers"] == tuple(parser.get_default("exclude_peer")) == ()
    assert told["dryRun"] is parser.get_default("dry_run") is False
    assert told["unit"] == parser.get_default("unit") == "tailscaled.service"
    assert (
        parser.get_default("state_dir")
        == defaults.STATE_DIR
        == f"/var/lib/{TABLE.jobs['watchdog'].directives['Service']['StateDirectory']}"
    )


CHOSEN: dict[str, Value] = {
    "tailscalePackage": "/opt/ts",
    "socket": "/run/a/b",
    "metricsPath": "/srv/a.prom",
    "maxRelaySeconds": "7",
    "cooldownSeconds": "8",
    "excludePeers": ("$nas", "my phone"),
    "dryRun": True,
    "unit": "a.service",
    "output": "/srv/a.ndjson",
    "redact": True,
    "extraArgs": ("--timeout", "3"),
}
READ: dict[str, object] = {
    "tailscale": "/opt/ts/bin/tailscale",
    "socket": "/run/a/b",
    "timeout": 3,
}
READ_BY_COLLECTED: dict[str, object] = {"metrics_path": "/srv/a.prom"}
READ_BY_CAPTURE: dict[str, object] = {
    "output": "/srv/a.ndjson",
    "redact": True,
    "max_size": 64 * 2**20,
    "keep": 5,
}
READ_BY_WATCHDOG: dict[str, object] = {
    "max_relay_seconds": 7,
    "cooldown_seconds": 8,
    "exclude_peer": ["$nas", "my phone"],
    "dry_run": True,
    "unit": "a.service",
    "restart_socket": TABLE.jobs["watchdog"].helpers["tailscale-watchdog-restart.socket"]["Socket"][
        "ListenStream"
    ],
}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_reads_its_command_line_as_it_was_chosen(job: str) -> None:
    """Also where all of its options were; and the watchdog asks where its helper listens."""
    expected = READ | {
        "watchdog": READ_BY_COLLECTED | READ_BY_WATCHDOG,
        "capture": READ_BY_CAPTURE,
    }.get(job, READ_BY_COLLECTED)
    _, name, *arguments = command(made(job, CHOSEN).units[f"tailscale-{job}.service"])
    assert name == job
    assert vars(cli._command_parser(job).parse_args(arguments)).items() >= expected.items()
