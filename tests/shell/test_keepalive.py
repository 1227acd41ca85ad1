"""The job `keepalive`: whom it pings, how often, and that none waits for another."""

from __future__ import annotations

import math
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import (
    complaints,
    ended,
    have_ended,
    interrupt,
    noted_processes,
    pids_in,
    run,
    series,
    started,
    wait_until,
)
from support.programs import calls, program
from support.servers import (
    DERP_PONG,
    DIRECT_PONG,
    PEER_RELAY_PONG,
    Request,
    Respond,
    Response,
    http,
    pong,
    serving,
    tailscaled,
)
from support.statuses import encoded, peer
from tsfc.core.tailscale.ping import Ping
from tsfc.shell.tailscaled import cli_pings
from tsfc.shell.tailscaled.source import Cli


def _peers(number: int, path: str = "direct") -> list[dict[str, Any]]:
    return [
        peer(f"p{n}", path, TailscaleIPs=[f"100.64.{n // 200 + 1}.{n % 200 + 1}"])
        for n in range(number)
    ]


def _by_ip(answers: dict[str, list[Response]]) -> Respond:
    """Answers the pings to each IP with what is listed for it, one after the other."""
    left = {ip: iter(responses) for ip, responses in answers.items()}
    return lambda request: next(left[request.ip])


KINDS: dict[str, tuple[list[Response], int, str]] = {
    "direct at once": ([DIRECT_PONG], 1, "direct"),
    "direct at last": ([DERP_PONG, DERP_PONG, DIRECT_PONG], 3, "direct"),
    "direct after a peer relay": ([PEER_RELAY_PONG, DIRECT_PONG], 2, "direct"),
    "relayed only": ([DERP_PONG] * 3, 3, "derp"),
    "peer-relayed only": ([PEER_RELAY_PONG] * 3, 3, "peer_relay"),
    "no answer": ([None] * 3, 3, "no_reply"),
    "no answer and then direct": ([None, DIRECT_PONG], 2, "direct"),
    "relayed and then no answer": ([DERP_PONG, None, None], 3, "derp"),
    "an error": ([pong(Err="no matching peer")], 1, "error"),
    "refused": ([http(b"invalid IP\n", "400 Bad Request")], 1, "error"),
    "closed without an answer": ([b""], 1, "error"),
    "garbage": ([b"\xff\xfe\r\n\r\n"], 1, "error"),
    "cut": ([DIRECT_PONG[:-5]], 1, "error"),
    "no document": ([http(b"[[")], 1, "error"),
    "null": ([http(b"null")], 1, "error"),
    "without end": ([b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 70_000], 1, "error"),
    "a length past all bounds": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n{"],
        1,
        "error",
    ),
    "no number": ([http(b'{"LatencySeconds": 1e999, "Endpoint": "192.0.2.7:1"}')], 1, "error"),
}


def test_each_peer_is_pinged_until_its_first_direct_answer_and_no_error_is_another_peers(
    box: Path,
) -> None:
    """All kinds of peers in one round: how often each is pinged, when, and what is said of it."""
    peers = [
        peer(kind.replace(" ", "-"), "derp", TailscaleIPs=[f"100.64.1.{n}"])
        for n, kind in enumerate(KINDS)
    ]
    ip_of = dict(zip(KINDS, (peer["TailscaleIPs"][0] for peer in peers), strict=True))
    respond = tailscaled(
        encoded(*peers),
        _by_ip({ip_of[kind]: responses for kind, (responses, _, _) in KINDS.items()}),
    )
    with serving(box / "s", respond) as server:
        ran = run(
            "keepalive",
            "--socket",
            str(box / "s"),
            "--ping-timeout",
            "1",
            "--metrics-path",
            str(box / "a.prom"),
        )

    errors = [kind for kind, (_, _, result) in KINDS.items() if result == "error"]
    (complaint,) = complaints("keepalive", ran)
    assert complaint.startswith(
        f"{len(errors)} of {len(KINDS)} peers could not be pinged, the first because: "
    )
    assert (ran.status, ran.stdout) == (0, "")

    times: defaultdict[str, list[float]] = defaultdict(list)
    for request in server.pings():
        assert request.method == "POST"
        assert request.target == f"/localapi/v0/ping?ip={request.ip}&type=disco"
        assert "Host: local-tailscaled.sock" in request.headers
        times[request.ip].append(request.at)
    assert {kind: len(times[ip]) for kind, ip in ip_of.items()} == {
        kind: number for kind, (_, number, _) in KINDS.items()
    }
    for kind, (responses, _, _) in KINDS.items():
        for answer, earlier, later in zip(
            responses, times[ip_of[kind]], times[ip_of[kind]][1:], strict=False
        ):
            if answer is None:
                assert 0.99 <= later - earlier < 1.9, f"{kind}: the timeout, and no second more"
            else:
                assert later - earlier >= 0.99, f"{kind}: a second after an answer"

    exported = series((box / "a.prom").read_text())
    results = Counter(result for _, _, result in KINDS.values())
    for result, number in results.items():
        assert exported[f'tailscale_keepalive_peers{{result="{result}"}}'] == number
    assert (
        exported['tailscale_keepalive_peer_latency_seconds{path="direct",peer="direct-at-once"}']
        == 0.012
    )
    assert all(math.isfinite(value) for value in exported.values())


def test_count_and_ping_timeout_bound_the_pings(box: Path) -> None:
    begun = time.monotonic()
    with serving(box / "s", tailscaled(encoded(peer("a")), lambda _: None)) as server:
        assert run(
            "keepalive", "--socket", str(box / "s"), "--count", "5", "--ping-timeout", "0.1"
        ) == (0, "", "")
        assert len(server.pings()) == 5
    assert time.monotonic() - begun > 0.5


def test_only_watched_peers_with_an_ip_are_pinged(box: Path) -> None:
    ip = "100.64.9.9"
    peers = [
        peer("ok", TailscaleIPs=[ip, "fd7a::1"]),
        peer("six", TailscaleIPs=["fd7a:115c:a1e0::6"]),
        peer("offline", "offline"),
        peer("expired", Expired=True),
        peer("sharee", ShareeNode=True),
        peer("mullvad", DNSName="de-fra-wg-1.mullvad.ts.net."),
        peer("no-ip", TailscaleIPs=[]),
        peer("null-ip", TailscaleIPs=None),
        peer("an-option", TailscaleIPs=["--help"]),
        peer("a-command", TailscaleIPs=["100.64.0.3;reboot"]),
        peer("itself", TailscaleIPs=["100.64.0.1"]),
    ]
    with serving(box / "s", tailscaled(encoded(*peers), lambda _: DIRECT_PONG)) as server:
        assert run("keepalive", "--socket", str(box / "s")) == (0, "", "")
    assert {request.ip for request in server.pings()} == {ip, "fd7a:115c:a1e0::6"}


@pytest.mark.parametrize("state", ["Stopped", "NeedsLogin", "Starting", "NoState"])
def test_nobody_is_pinged_while_the_backend_does_not_run(box: Path, state: str) -> None:
    with serving(
        box / "s", tailscaled(encoded(peer("a"), BackendState=state), lambda _: DIRECT_PONG)
    ) as server:
        assert run("keepalive", "--socket", str(box / "s")) == (0, "", "")
    assert server.pings() == []


def _when_all_wait(number: int, answer: bytes) -> Respond:
    """Holds every ping until so many are open, and then answers all."""
    held: list[socket.socket] = []

    def respond(request: Request) -> None:
        held.append(request.connection)
        if len(held) == number:
            for connection in held:
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)

    return respond


def test_all_peers_are_pinged_at_once(box: Path) -> None:
    """This server answers nobody before everybody has asked."""
    with serving(
        box / "s", tailscaled(encoded(*_peers(100)), _when_all_wait(100, DIRECT_PONG))
    ) as server:
        assert run(
            "keepalive",
            "--socket",
            str(box / "s"),
            "--ping-timeout",
            "30",
            "--metrics-path",
            str(box / "a.prom"),
        ) == (0, "", "")
    assert len(server.pings()) == 100
    assert series((box / "a.prom").read_text())['tailscale_keepalive_peers{result="direct"}'] == 100


def test_more_peers_than_the_soft_limit_on_open_files(box: Path) -> None:
    with serving(
        box / "s", tailscaled(encoded(*_peers(100)), _when_all_wait(100, DIRECT_PONG))
    ) as server:
        assert run(
            "keepalive",
            "--socket",
            str(box / "s"),
            "--ping-timeout",
            "30",
            around='ulimit -Sn 48; exec "$@"',
        ) == (0, "", "")
    assert len(server.pings()) == 100


def test_more_peers_than_the_hard_limit_on_open_files_is_one_line(box: Path) -> None:
    with serving(box / "s", tailscaled(encoded(*_peers(100)), lambda _: None)) as server:
        ran = run(
            "keepalive",
            "--socket",
            str(box / "s"),
            "--count",
            "1",
            "--ping-timeout",
            "0.3",
            around='ulimit -n 48; exec "$@"',
        )
    (complaint,) = complaints("keepalive", ran)
    assert complaint.endswith("opening a socket: Too many open files; raise LimitNOFILE")
    assert ran.status == 0
    assert 30 < len(server.pings()) < 48


def test_a_crowded_socket_is_tried_again(box: Path) -> None:
    """More peers than the socket's backlog holds, and a server that takes them one by one, slowly."""
    with serving(box / "s", tailscaled(encoded(*_peers(50)), lambda _: DIRECT_PONG)) as server:
        server.narrow()
        assert run(
            "keepalive", "--socket", str(box / "s"), "--metrics-path", str(box / "a.prom")
        ) == (0, "", "")
    assert series((box / "a.prom").read_text())['tailscale_keepalive_peers{result="direct"}'] == 50


_MEASURED = """
import resource, sys
from tsfc.cli.main import main
status = main(sys.argv[2:])
with open("/proc/self/status") as file, open(sys.argv[1], "w") as out:
    out.write(next(line.split()[1] for line in file if line.startswith("VmHWM")))
sys.exit(status)
"""
"Memory of the process itself: what `wait4` tells counts the process that started it, too."


@pytest.fixture
def many_files() -> Iterator[None]:
    """Lets this process, where the server is, have enough open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"no more than {hard} open files allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_thousand_peers_of_which_none_answers(box: Path) -> None:
    """Three pings each take three timeouts and little more, and 150 MiB at most. The real timeout, five seconds, is in `make bench`."""
    with serving(box / "s", tailscaled(encoded(*_peers(1000)), lambda _: None)) as server:
        begun = time.monotonic()
        command = [
            sys.executable,
            "-c",
            _MEASURED,
            str(box / "kib"),
            "keepalive",
            "--socket",
            str(box / "s"),
            "--ping-timeout",
            "0.5",
        ]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        seconds = time.monotonic() - begun
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert len(server.pings()) == 3000
        assert server.most_open >= 1000
    assert seconds < 3 * 0.5 + 4
    assert int((box / "kib").read_text()) < 150 * 1024


def test_sigterm_in_the_middle_of_a_round_is_one_line_and_no_metrics(box: Path) -> None:
    with (
        serving(box / "s", tailscaled(encoded(*_peers(20)), lambda _: None)) as server,
        started(
            "keepalive", "--socket", str(box / "s"), "--metrics-path", str(box / "a.prom")
        ) as process,
    ):
        wait_until(lambda: len(server.pings()) == 20, "all are pinged")
        interrupt(process, signal.SIGTERM)
        assert ended(process) == (143, "", "tsfc: ended by SIGTERM before it was done\n")
    assert not list(box.glob("*.prom*"))


# With --source cli


def _tailscale(box: Path, programs: Path, ping: str) -> None:
    """Puts a `tailscale` on PATH whose `ping` is a shell script."""
    program(
        programs,
        "tailscale",
        f'case "$*" in\n*"status --json") exec cat {box}/status.json ;;\nesac\nfor ip in "$@"; do :; done\n{ping}',
    )


def test_the_program_pings_each_peer_as_documented(box: Path, programs: Path) -> None:
    (box / "status.json").write_bytes(encoded(*_peers(3), peer("offline", "offline")))
    _tailscale(
        box,
        programs,
        """case $ip in
*.1) echo "pong from p0 ($ip) via 192.0.2.7:41641 in 12ms" ;;
*.2) echo "pong from p1 ($ip) via DERP(fra) in 1.048s"; echo 'direct connection not established' >&2; exit 1 ;;
*.3) echo "ping \\"$ip\\" timed out"; echo 'no reply' >&2; exit 1 ;;
esac""",
    )
    ran = run(
        "keepalive", "--source", "cli", "--metrics-path", str(box / "a.prom"), programs=programs
    )
    assert ran == (0, "", "")
    first, *pings = calls(programs, "tailscale")
    assert first == "status --json"
    assert sorted(pings) == [f"ping -c 3 100.64.1.{n}" for n in (1, 2, 3)]
    exported = series((box / "a.prom").read_text())
    assert {
        result: exported[f'tailscale_keepalive_peers{{result="{result}"}}']
        for result in ("direct", "derp", "no_reply", "error")
    } == {
        "direct": 1,
        "derp": 1,
        "no_reply": 1,
        "error": 0,
    }
    assert exported['tailscale_keepalive_peer_latency_seconds{path="derp",peer="p1"}'] == 1.048


def test_options_of_the_program(box: Path, programs: Path) -> None:
    (box / "status.json").write_bytes(encoded(*_peers(1)))
    _tailscale(box, programs, 'echo "pong from p0 ($ip) via 192.0.2.7:41641 in 12ms"')
    given = ("--socket", "/run/other.sock", "--count", "7", "--ping-timeout", "2.5")
    assert run("keepalive", "--source", "cli", *given, programs=programs) == (0, "", "")
    assert calls(programs, "tailscale") == [
        "--socket=/run/other.sock status --json",
        "--socket=/run/other.sock ping -c 7 --timeout=2.5s 100.64.1.1",
    ]


def test_programs_that_fail_are_one_line(box: Path, programs: Path) -> None:
    (box / "status.json").write_bytes(encoded(*_peers(3)))
    _tailscale(box, programs, "echo 'no matching peer' >&2; exit 1")
    ran = run("keepalive", "--source", "cli", programs=programs)
    (complaint,) = complaints("keepalive", ran)
    assert complaint.startswith("3 of 3 peers could not be pinged, the first because: running `")
    assert complaint.endswith("no matching peer")
    assert ran.status == 0


def test_the_programs_run_all_at_once_and_each_is_reaped(box: Path, programs: Path) -> None:
    """None of them ends before all have begun; none is left, not even as a zombie."""
    (box / "status.json").write_bytes(encoded(*_peers(40)))
    with noted_processes(box) as noted:
        _tailscale(
            box,
            programs,
            f'echo $$ >> {noted}\nwhile [ "$(wc -l < {noted})" -lt 40 ]; do sleep 0.1; done\necho "pong from p ($ip) via 192.0.2.7:1 in 1ms"',
        )
        ran = run(
            "keepalive",
            "--source",
            "cli",
            "--metrics-path",
            str(box / "a.prom"),
            programs=programs,
            around='ulimit -Sn 32; exec "$@"',
        )
        assert ran == (0, "", "")
        assert (
            series((box / "a.prom").read_text())['tailscale_keepalive_peers{result="direct"}'] == 40
        )
        assert not [pid for pid in noted.read_text().split() if Path("/proc", pid).exists()]


@pytest.mark.parametrize(
    "trap", [pytest.param("", id="that heed it"), pytest.param("trap '' TERM; ", id="that do not")]
)
def test_sigterm_leaves_no_child_nor_grandchild(box: Path, programs: Path, trap: str) -> None:
    (box / "status.json").write_bytes(encoded(*_peers(5)))
    with noted_processes(box) as noted:
        _tailscale(
            box, programs, f"{trap}sleep 300 &\necho $! >> {noted}; echo $$ >> {noted}; wait"
        )
        with started("keepalive", "--source", "cli", programs=programs) as process:
            wait_until(lambda: len(pids_in(noted)) == 10, "all are pinged")
            interrupt(process, signal.SIGTERM)
            assert ended(process) == (143, "", "tsfc: ended by SIGTERM before it was done\n")
        wait_until(lambda: have_ended(noted), "all of them have ended")


def test_a_program_that_hangs_is_ended_and_hides_no_other_answer(
    box: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that a `tailscale ping` may take beyond its pings is shortened here."""
    monkeypatch.setattr(cli_pings, "_SLACK_SECONDS", 0.3)
    monkeypatch.setattr(cli_pings, "PAUSE_SECONDS", 0.0)
    with noted_processes(box) as noted:
        _tailscale(
            box,
            programs,
            f'case $ip in *.2) echo $$ >> {noted}; sleep 300 ;; esac\necho "pong from p ($ip) via 192.0.2.7:1 in 1ms"',
        )
        pings = (Ping("quick", "100.64.1.1"), Ping("hung", "100.64.1.2"))
        round_ = cli_pings.ping_all(
            Cli((str(programs / "tailscale"),)), pings, count=1, timeout=0.2
        )
        assert [result.outcome for result in round_.results["quick"]] == ["direct"]
        assert [result.outcome for result in round_.results["hung"]] == ["error"]
        assert round_.error
        assert have_ended(noted)


def test_a_program_that_vanishes_after_the_status_is_one_line(box: Path, programs: Path) -> None:
    (box / "status.json").write_bytes(encoded(*_peers(2)))
    program(programs, "tailscale", f"rm {programs}/tailscale; exec cat {box}/status.json")
    ran = run("keepalive", "--source", "cli", programs=programs)
    (complaint,) = complaints("keepalive", ran)
    assert "2 of 2 peers could not be pinged, the first because: running `" in complaint
    assert ran.status == 0
