"""`tsfc report-bug`: one file that names nobody, whatever is missing."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.processes import UNPRIVILEGED, error_lines, inside, run, short_directory
from support.programs import program
from support.statuses import PATHS, encoded, peer, status
from tsfc.core.evaluation.observation import parse, status_of
from tsfc.core.tailscale.peers import named
from tsfc.core.tailscale.status import decode

NOW = 1_800_000_000
LINES = (
    "DETECTED: {} transitioned to relay",
    "WAITING: {} on relay for 300s (threshold: 600s)",
    "excluding {}: there is no such peer",
    "reading tailscaled's status: peer {} is left out",
    "surprise {}",
    "{}",
)
"Lines of the journal with the name of a peer."


def journal(*messages: str) -> str:
    """What `journalctl --output=json` prints."""
    return "".join(
        json.dumps(
            {
                "__REALTIME_TIMESTAMP": f"{NOW}000000",
                "SYSLOG_IDENTIFIER": "tailscale-watchdog",
                "MESSAGE": message,
            }
        )
        + "\n"
        for message in messages
    )


class Box:
    """A node with files of its jobs, units and a journal."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.programs = directory / "bin"
        self.programs.mkdir()
        self.report = directory / "report.txt"
        self.metrics = directory / "tailscale-watchdog.prom"
        self.status = directory / "status.json"

    def options(self) -> tuple[str, ...]:
        """Options with which the command reads the files of this node."""
        return (
            *("--status-file", str(self.status), "--now", str(NOW)),
            *("--watchdog-metrics", str(self.metrics), "--output", str(self.report)),
        )

    def run_jobs(self, *peers: dict[str, Any], excluded: str) -> None:
        """Let the real jobs write their files."""
        self.status.write_bytes(encoded(*peers))
        at = ("--status-file", str(self.status), "--now")
        metrics = str(self.directory / "tailscale-peers.prom")
        assert inside("exporter", *at, str(NOW - 60), "--metrics-path", metrics) == 0
        policy = ("--policy", "guarded", f"--exclude-peer={excluded}", "--dry-run")
        files = ("--metrics-path", str(self.metrics), "--state-dir", f"{self.directory}/state")
        for now in (NOW - 70, NOW - 10):
            assert inside("watchdog", *at, str(now), *policy, *files) == 0

    def install(self, unit: str, *messages: str) -> None:
        """Let `systemctl` print a unit, and `journalctl` the messages of the watchdog."""
        (self.programs / "unit").write_text(unit)
        (self.programs / "journal").write_text(journal(*messages))
        program(
            self.programs,
            "systemctl",
            f"case $1 in --version) echo 'systemd 252 (x)';; "
            f"cat) cat {self.programs}/unit;; "
            "list-*) echo 'tailscale-watchdog.service loaded active running x';; esac",
        )
        program(
            self.programs,
            "journalctl",
            f"case $* in *=tailscale-watchdog) cat {self.programs}/journal;; esac",
        )


@pytest.fixture
def node(box: Path) -> Box:
    return Box(box)


UNIT = """# /etc/systemd/system/tailscale-watchdog.service
# Options: {{"arguments":["--watchdog-exclude-peers={0}"],"version":1}}
[Service]
ExecStart="/opt/tsfc/bin/tsfc" "watchdog" "--exclude-peer" "{0}"
SyslogIdentifier=tailscale-watchdog
# /etc/systemd/system/tailscale-watchdog.service.d/local.conf
Environment=OWNER={0}
"""


def _fixed_key(size: int) -> bytes:
    """Make a failure of the property test repeatable."""
    return b"k" * size


NAMES = st.text(
    st.sampled_from(
        "abcxyzABC019 '-_.#:/@\"\\{}=,\N{UNICORN FACE}\N{LATIN SMALL LETTER E WITH ACUTE}"
    ),
    min_size=6,
    max_size=20,
).map(lambda text: f"q{text.strip()}q")
LABELS = st.from_regex(r"q[a-z0-9]{4,12}(-[a-z0-9]{1,8})?", fullmatch=True)


@st.composite
def peers(draw: st.DrawFn) -> tuple[dict[str, Any], list[str]]:
    """A peer and its secrets."""
    label, host, stable_id = draw(LABELS), draw(NAMES), f"n{draw(LABELS)}CNTRL"
    has_dns = draw(st.booleans())
    suffix = draw(st.sampled_from(["tail1.ts.net", "qother.ts.net", "qcorp.example"]))
    ip = f"100.{draw(st.integers(64, 127))}.{draw(st.integers(100, 255))}.{draw(st.integers(100, 255))}"
    tag = draw(LABELS)
    made = peer(
        label,
        draw(st.sampled_from(list(PATHS))),
        HostName=host,
        DNSName=f"{label}.{suffix}." if has_dns else "",
        ID=stable_id,
        TailscaleIPs=[ip],
        Tags=[f"tag:{tag}"],
    )
    return made, [host, stable_id, ip, tag, *([label] if has_dns else []), suffix.partition(".")[0]]


@settings(max_examples=40)
@given(st.lists(peers(), min_size=1, max_size=4), LABELS, LABELS)
def test_no_secret_of_the_status_is_in_the_file(
    made: list[tuple[dict[str, Any], list[str]]], login: str, gone: str
) -> None:
    secrets = {text for _, texts in made for text in texts} | {
        login,
        gone,
        "192.0.2.7",
        "selfCNTRL",
    }
    document = status(
        *(one for one, _ in made), User={"1": {"ID": 1, "LoginName": f"{login}@qcorp.example"}}
    )
    keys = list(document["Peer"])
    with short_directory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr("secrets.token_bytes", _fixed_key)
        node = Box(directory)
        node.run_jobs(*(one for one, _ in made), excluded=made[0][1][0])
        node.status.write_text(json.dumps(document))
        unique = [one.name for one in named(decode(node.status.read_bytes()).unwrap())]
        texts = [*unique, gone, login, *keys, *(text for _, known in made for text in known)]
        messages = [line.replace("{}", text) for line in LINES for text in texts]
        node.install(UNIT.format(unique[0]), *messages)
        patch.setenv("PATH", str(node.programs))
        assert inside("report-bug", *node.options()) == 0
        report = node.report.read_text()
    assert "== options of the units ==" in report
    assert "== snapshot of the watchdog ==" in report
    assert "== journal of tailscale-watchdog ==" in report
    found = {
        text for text in (*secrets, *keys) if text in report or json.dumps(text)[1:-1] in report
    }
    assert found - {"tail1"} == set()


def test_one_peer_can_be_followed_through_the_file(node: Box) -> None:
    relayed = peer("nas", "derp")
    node.run_jobs(relayed, peer("rpi3"), excluded="rpi3")
    node.install(UNIT.format("rpi3"), LINES[1].format("nas"))
    ran = run("report-bug", "nas", "NOBODY", *node.options(), programs=node.programs)
    assert (ran.status, ran.stderr) == (0, "")
    said = re.search(r"^nas is (n[0-9a-f]{16})\.$", ran.stdout, re.MULTILINE)
    assert said
    assert "No peer has the name NOBODY.\n" in ran.stdout
    report = node.report.read_text()
    sections = {part.partition(" ==\n")[0]: part for part in report.split("\n== ")[1:]}
    assert {title.rpartition("/")[2] for title, part in sections.items() if said[1] in part} == {
        "tsfc doctor",
        "tsfc peers",
        "journal of tailscale-watchdog",
        "tailscale-peers.prom",
        "tailscale-watchdog.prom",
        "snapshot of the watchdog",
        "status",
    }
    assert all(f"  {title} " in ran.stdout for title in sections)
    assert re.search(r"^Nothing was sent\.", ran.stdout, re.MULTILINE)


def test_replay_reads_the_status_of_the_file(node: Box) -> None:
    node.run_jobs(peer("nas", "derp"), excluded="rpi3")
    assert run("report-bug", *node.options()).status == 0
    (capture,) = [
        text
        for text in node.report.read_text().splitlines()
        if text[:2] == '{"' and "captured_at" in text
    ]
    assert status_of(parse(capture.encode()).unwrap()).unwrap().backend_state == "Running"
    ran = run("replay", "-", stdin=capture.encode())
    assert (ran.status, ran.stderr) == (0, "")


def test_what_is_missing_is_one_line_each(box: Path) -> None:
    """No systemd, no tailscaled, no files, no rights."""
    report = box / "r.txt"
    box.chmod(0o777)
    ran = run(
        *("report-bug", "--socket", f"{box}/none.sock", "--output", str(report)),
        *("--watchdog-metrics", f"{box}/none/x.prom"),
        around=UNPRIVILEGED,
    )
    assert (ran.status, ran.stderr) == (0, "")
    missing = [line for line in ran.stdout.splitlines() if line.startswith("Missing: ")]
    assert [
        text
        for text in ("tailscaled.sock", "none.sock", "systemctl", "journalctl", "x.json", "metrics")
        if any(text in line for line in missing)
    ] == ["none.sock", "systemctl", "journalctl", "x.json", "metrics"]
    assert len(missing) == 5
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    assert str(box) not in report.read_text()
    assert '"fault":' in report.read_text()


def test_an_existing_file_is_not_overwritten(node: Box) -> None:
    node.status.write_bytes(encoded(peer("nas")))
    node.report.write_text("mine")
    ran = run("report-bug", *node.options())
    (line,) = error_lines("report-bug", ran)
    assert (ran.status, line) == (
        1,
        f"writing {node.report}: it exists; set --output to a new file",
    )
    assert node.report.read_text() == "mine"


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_nothing(node: Box) -> None:
    node.status.write_bytes(encoded(peer("nas")))
    options = ("--status-file", str(node.status), "--output", f"{node.directory}/none/r.txt")
    ran = run("report-bug", *options)
    (line,) = error_lines("report-bug", ran)
    assert ran.status == 1
    assert "No such file or directory; set --output" in line
