"""Documents from hell through whole processes: never a traceback, never half a file, never a write outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.processes import Forked, Ran, complaints, inside, run, series, tree
from support.statuses import encoded, peer
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
    "a number past all bounds": encoded(peer("a", RxBytes=0)).replace(
        b'"RxBytes": 0', b'"RxBytes": 1e999'
    ),
    "more digits than Python reads": encoded(peer("a", RxBytes=0)).replace(
        b'"RxBytes": 0', b'"RxBytes": ' + b"9" * 5000
    ),
    "deeply nested": b'{"BackendState":"Running","Peer":' + b'{"a":' * 100_000,
    "deeply nested where nobody looks": b'{"BackendState":"Running","X":'
    + b"[" * 200_000
    + b"]" * 200_000
    + b"}",
    "not UTF-8": encoded(peer("NAME")).replace(b"NAME", b"\xff\xfe\x80"),
    "half a surrogate": encoded(peer("NAME")).replace(b"NAME", b"\\ud800"),
    "cut": encoded(peer("a"))[:-30],
    "a byte order mark": b"\xef\xbb\xbf" + encoded(peer("a")),
    "two documents": encoded() * 2,
    "peers of another type": encoded(Peer=["a"]),
    "a name of another type": encoded(peer("a", DNSName=5)),
    "zeros": bytes(10_000),
    "a time without a zone": encoded(peer("a", LastHandshake="2026-01-01T00:00:00")),
    "a time past all bounds": encoded(peer("a", LastHandshake="9999-99-99T00:00:00Z")),
}
EXPOSITIONS = {
    "not UTF-8": b"a \xff\n",
    "HTML": b"<!DOCTYPE html>\n",
    "cut": b'# TYPE a counter\na{b="c',
    "JSON": b"{}",
    "a label with a newline": b'a{b="c\nd"} 1\n',
    "two of one series": b'a{b="c"} 1\na{b="c"} 2\n',
    "one of our own": b"tailscale_native_metrics_up 1\n",
    "NUL": b"a\0 1\n",
    "a carriage return": b"a 1\r\n",
    "another line separator": "a 1\N{LINE SEPARATOR}b 2\n".encode(),
    "an escape sequence": b"\x1b[31ma 1\n",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_from_hell_is_one_line_for_each_job_and_tailscale_up_0(
    box: Path, forks: Forked, name: str
) -> None:
    (box / "status.json").write_bytes(DOCUMENTS[name])
    (box / "state").mkdir()
    (box / "state" / "peer_a").write_text("1\n")
    given = ("--now", "1000", "--status-file", str(box / "status.json"))
    for job, options in {
        "exporter": [],
        "keepalive": [],
        "watchdog": ["--state-dir", str(box / "state")],
    }.items():
        ran = forks.run(job, *given, "--metrics-path", str(box / f"{job}.prom"), *options)
        assert (ran.status, ran.stdout, len(complaints(job, ran))) == (1, "", 1), job
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


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_an_exposition_from_hell_is_one_line_and_up_0(box: Path, forks: Forked, name: str) -> None:
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
    assert (ran.status, ran.stdout, len(complaints("native-metrics", ran))) == (1, "", 1)
    assert series((box / "a.prom").read_text()) == {"tailscale_native_metrics_up": 0}
    assert list(tree(box)) == ["a.prom", "metrics"]


def _peers_from_hell() -> bytes:
    """Returns a status in which each name from hell is a DNS name, a host name, an ID, a tag, a user and a path."""
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


def test_names_from_hell_stay_inside_their_labels_lines_and_files(box: Path, forks: Forked) -> None:
    """A run that detects, one that restarts, one that recovers: each leaves the world outside its own files as it was."""
    outer, inner = box / "outer", box / "outer" / "inner"
    (inner / "state").mkdir(parents=True)
    (outer / "etc").mkdir()
    (outer / "etc" / "passwd").write_text("untouched")
    (box / "status.json").write_bytes(_peers_from_hell())
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

    given = (
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
        ran = forks.run("watchdog", "--now", str(1_800_000_000 + now), *given)
        said = ran.stdout.split("\n")[:-1]
        assert len(said) == len(NAMES)
        assert all(line.isprintable() and line.startswith(starts) for line in said)
        assert ran.status == status_, "1 where it restarts, for there is no systemctl"
    assert len(
        [path for path in (inner / "state").iterdir() if path.name.startswith("peer_")]
    ) == len(NAMES)

    (box / "status.json").write_bytes(encoded())
    assert forks.run("watchdog", "--now", "1800001000", *given) == (0, "", "")
    assert not [path for path in (inner / "state").iterdir() if path.name.startswith("peer_")]
    after = {
        path: content for path, content in tree(outer).items() if not path.startswith("inner/")
    }
    assert after == {
        path: content for path, content in before.items() if not path.startswith("inner/")
    }
    assert {path.name for path in inner.iterdir()} == {"e.prom", "w.prom", "w.json", "state"}


@pytest.mark.parametrize(
    "given", ["a directory", "nothing", "a file in a file", "a file that gives nothing"]
)
def test_an_input_that_cannot_be_read_is_one_line(box: Path, given: str) -> None:
    (box / "file").touch()
    path = {
        "a directory": box,
        "nothing": box / "nothing",
        "a file in a file": box / "file" / "a",
        "a file that gives nothing": Path("/proc/self/mem"),
    }[given]
    for job, option in {"exporter": "--status-file", "native-metrics": "--metrics-file"}.items():
        ran = run(job, option, str(path), "--metrics-path", str(box / "a.prom"))
        (complaint,) = complaints(job, ran)
        assert complaint.startswith(f"reading {path}: ")
        assert ran.status == 1


def test_an_input_past_the_limit_is_one_line(
    box: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The limit is lowered here; the file has no end."""
    monkeypatch.setattr(observe, "RESPONSE_LIMIT", 2**20)
    status_ = inside(
        "exporter", "--status-file", "/dev/zero", "--metrics-path", str(box / "a.prom")
    )
    said = capfd.readouterr()
    assert complaints("exporter", Ran(status_, said.out, said.err)) == [
        "reading /dev/zero: it is larger than 1 MiB; is it the right file?"
    ]
    assert status_ == 1
