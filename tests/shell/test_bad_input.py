"""Hostile input: no traceback, no partial file, no write outside the own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.processes import Completed, Forked, error_lines, inside, run, series, tree
from support.programs import program
from support.statuses import encoded, peer, status
from tsfc.shell.tailscaled import observe

NAMES = [
    "../../etc/passwd",
    "a\nb",
    "a\r\nb",
    "nul\0byte",
    "\x1b[31mred",
    'quote"back\\slash',
    "x" * 10_000,
    "\N{PILE OF POO}" * 200,
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp",
    "\N{LINE SEPARATOR}",
    "\x85next",
    "..",
    ".",
    "/",
    "-rf",
    "%2e%2e%2f",
    "a#b",
    "{}",
    "",
    " ",
    "same",
    "same",
]
DOCUMENTS = {
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "a number out of range": encoded(peer("a", RxBytes=0)).replace(
        b'"RxBytes": 0', b'"RxBytes": 1e999'
    ),
    "more digits than Python parses": encoded(peer("a", RxBytes=0)).replace(
        b'"RxBytes": 0', b'"RxBytes": ' + b"9" * 5000
    ),
    "deeply nested": b'{"BackendState":"Running","Peer":' + b'{"a":' * 100_000,
    "deeply nested in an unknown field": b'{"BackendState":"Running","X":'
    + b"[" * 200_000
    + b"]" * 200_000
    + b"}",
    "not UTF-8": encoded(peer("NAME")).replace(b"NAME", b"\xff\xfe\x80"),
    "half a surrogate": encoded(peer("NAME")).replace(b"NAME", b"\\ud800"),
    "cut": encoded(peer("a"))[:-30],
    "two documents": encoded() * 2,
    "peers of another type": encoded(Peer=["a"]),
    "zeros": bytes(10_000),
}
EXPOSITIONS = {
    "not UTF-8": b"a \xff\n",
    "HTML": b"<!DOCTYPE html>\n",
    "cut": b'# TYPE a counter\na{b="c',
    "JSON": b"{}",
    "a label with a newline": b'a{b="c\nd"} 1\n',
    "two of one series": b'a{b="c"} 1\na{b="c"} 2\n',
    "a metric of tsfc": b"tailscale_native_metrics_up 1\n",
    "NUL": b"a\0 1\n",
    "a carriage return": b"a 1\r\n",
    "another line separator": "a 1\N{LINE SEPARATOR}b 2\n".encode(),
    "an escape sequence": b"\x1b[31ma 1\n",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_an_invalid_status_is_a_one_line_error_of_each_job(
    box: Path, forks: Forked, name: str
) -> None:
    (box / "status.json").write_bytes(DOCUMENTS[name])
    (box / "state").mkdir()
    (box / "state" / "peer_a").write_text("1\n")
    options = ("--now", "1000", "--status-file", str(box / "status.json"))
    for job, more in {
        "exporter": [],
        "keepalive": [],
        "watchdog": ["--state-dir", str(box / "state")],
    }.items():
        ran = forks.run(job, *options, "--metrics-path", str(box / f"{job}.prom"), *more)
        assert (ran.status, ran.stdout, len(error_lines(job, ran))) == (1, "", 1), job
        assert len(ran.stderr) < 800
    assert series((box / "exporter.prom").read_text()) == {"tailscale_up": 0}
    assert (box / "state" / "peer_a").read_text() == "1\n"
    assert {path.split("/")[0] for path in tree(box)} == {
        "status.json",
        "state",
        "exporter.prom",
        "keepalive.prom",
        "watchdog.prom",
        "watchdog.json",
    }


@pytest.mark.parametrize("job", ["exporter", "keepalive", "watchdog"])
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"DNSName": 5}, id="a name of another type"),
        pytest.param({"LastHandshake": "2026-01-01T00:00:00"}, id="a time without a zone"),
        pytest.param({"LastHandshake": "9999-99-99T00:00:00Z"}, id="a time out of range"),
    ],
)
def test_a_peer_that_cannot_be_read_costs_itself_and_one_line_of_each_job(
    box: Path, forks: Forked, job: str, fields: dict[str, Any]
) -> None:
    (box / "status.json").write_bytes(encoded(peer("a", **fields), peer("b")))
    ran = forks.run(
        job,
        *("--now", "1000", "--status-file", str(box / "status.json")),
        *("--socket", str(box / "s"), "--metrics-path", str(box / "a.prom")),
        *(["--state-dir", str(box / "state"), "--dry-run"] if job == "watchdog" else []),
    )
    line = error_lines(job, ran)[0]
    assert line.startswith("reading tailscaled's status: peer ")
    assert " is left out: " in line
    assert ran.status == 0
    if job != "keepalive":
        assert 'peer="b"' in (box / "a.prom").read_text()


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_an_invalid_exposition_is_a_one_line_error_and_up_0(
    box: Path, forks: Forked, name: str
) -> None:
    (box / "a.prom").write_text("tailscaled_old 1\n")
    (box / "metrics").write_bytes(EXPOSITIONS[name])
    ran = forks.run(
        "native-metrics",
        "--now",
        "1",
        "--metrics-file",
        str(box / "metrics"),
        "--metrics-path",
        str(box / "a.prom"),
    )
    assert (ran.status, ran.stdout, len(error_lines("native-metrics", ran))) == (1, "", 1)
    assert series((box / "a.prom").read_text()) == {"tailscale_native_metrics_up": 0}
    assert list(tree(box)) == ["a.prom", "metrics"]


def _hostile_peers() -> bytes:
    """Return a status with each hostile name as DNS name, hostname, ID, OS and tag."""
    peers = [
        peer(
            "a",
            "derp",
            ID=name,
            DNSName=f"{name}.tail1.ts.net." if n % 2 else "",
            HostName=name,
            OS=name,
            Tags=[name],
        )
        for n, name in enumerate(NAMES)
    ]
    return encoded(
        *peers, User={"1": {"LoginName": "\n".join(NAMES[:8])}}, Health=NAMES, Version=NAMES[1]
    )


def test_hostile_names_stay_inside_labels_lines_and_file_names(box: Path, forks: Forked) -> None:
    """Runs that detect, restart and recover change only their own files."""
    outer, inner = box / "outer", box / "outer" / "inner"
    (inner / "state").mkdir(parents=True)
    (outer / "etc").mkdir()
    (outer / "etc" / "passwd").write_text("untouched")
    (box / "status.json").write_bytes(_hostile_peers())
    before = tree(outer)

    assert forks.run(
        "exporter",
        "--status-file",
        str(box / "status.json"),
        "--metrics-path",
        str(inner / "e.prom"),
    ) == (0, "", "")
    exported = series((inner / "e.prom").read_text())
    assert len([name for name in exported if name.startswith("tailscale_peer_online{")]) == len(
        NAMES
    )

    options = (
        "--status-file",
        str(box / "status.json"),
        "--state-dir",
        str(inner / "state"),
        "--metrics-path",
        str(inner / "w.prom"),
    )
    for now, starts, status_ in (
        (0, ("DETECTED: ",), 0),
        (300, ("WAITING: ",), 0),
        (700, ("COOLDOWN: ", "RESTART: "), 1),
    ):
        ran = forks.run("watchdog", "--now", str(1_800_000_000 + now), *options)
        lines = ran.stdout.split("\n")[:-1]
        assert len(lines) == len(NAMES)
        assert all(line.isprintable() and line.startswith(starts) for line in lines)
        assert ran.status == status_, "1 if it restarts: there is no systemctl"
    assert len(
        [path for path in (inner / "state").iterdir() if path.name.startswith("peer_")]
    ) == len(NAMES)

    (box / "status.json").write_bytes(encoded())
    assert forks.run("watchdog", "--now", "1800001000", *options) == (0, "", "")
    assert not [path for path in (inner / "state").iterdir() if path.name.startswith("peer_")]
    after = {
        path: content for path, content in tree(outer).items() if not path.startswith("inner/")
    }
    assert after == {
        path: content for path, content in before.items() if not path.startswith("inner/")
    }
    assert {path.name for path in inner.iterdir()} == {"e.prom", "w.prom", "w.json", "state"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("source", ["file", "cli"])
def test_a_status_that_powershell_has_written_is_read(
    box: Path, programs: Path, source: str, encoding: str
) -> None:
    """A capture of it is UTF-8."""
    status_file = box / "status.json"
    status_file.write_bytes(json.dumps(status(peer("a"))).encode(encoding))
    given = ("--status-file", str(status_file))
    if source == "cli":
        program(programs, "tailscale", f"cat {status_file}")
        given = ("--source", "cli")
    exported = run("exporter", *given, "--metrics-path", "-", programs=programs)
    assert (exported.status, exported.stderr) == (0, "")
    assert series(exported.stdout)['tailscale_peer_online{peer="a"}'] == 1
    captured = run("capture", *given, "--output", "-", "--now", "1", programs=programs)
    assert (captured.status, captured.stderr) == (0, "")
    assert json.loads(captured.stdout)["status"] == status(peer("a"))


@pytest.mark.parametrize(
    ("content", "why"),
    [("", "0 bytes: it is empty"), ("<html>", '6 bytes: it is not JSON, but: "<html>"')],
)
def test_what_is_no_status_is_quoted(box: Path, content: str, why: str) -> None:
    (box / "status.json").write_text(content)
    ran = run("exporter", "--status-file", str(box / "status.json"), "--metrics-path", "-")
    assert error_lines("exporter", ran) == [
        f"reading tailscaled's status, {why}; is it the output of `tailscale status --json`?"
    ]
    assert ran.status == 1


@pytest.mark.parametrize(
    "kind", ["a directory", "a missing file", "a path through a file", "an unreadable file"]
)
def test_an_input_that_cannot_be_read_is_a_one_line_error(box: Path, kind: str) -> None:
    (box / "file").touch()
    path = {
        "a directory": box,
        "a missing file": box / "nothing",
        "a path through a file": box / "file" / "a",
        "an unreadable file": Path("/proc/self/mem"),
    }[kind]
    for job, option in {"exporter": "--status-file", "native-metrics": "--metrics-file"}.items():
        ran = run(job, option, str(path), "--metrics-path", str(box / "a.prom"))
        (complaint,) = error_lines(job, ran)
        assert complaint.startswith(f"reading {path}: ")
        assert ran.status == 1


def test_an_input_larger_than_the_limit_is_a_one_line_error(
    box: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The limit is lowered; the file is endless."""
    monkeypatch.setattr(observe, "RESPONSE_LIMIT", 2**20)
    status_ = inside(
        "exporter", "--status-file", "/dev/zero", "--metrics-path", str(box / "a.prom")
    )
    out, err = capfd.readouterr()
    assert error_lines("exporter", Completed(status_, out, err)) == [
        "reading /dev/zero: it is larger than 1 MiB; is it the right file?"
    ]
    assert status_ == 1
