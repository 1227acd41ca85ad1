"""The job `keepalive`: which peers it pings, how often, and that it is concurrent."""

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
    ended,
    error_lines,
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
from tsfc.shell import waiting
from tsfc.shell.tailscaled import cli_pings
from tsfc.shell.tailscaled.source import Cli


def _peers(number: int, path: str = "direct") -> list[dict[str, Any]]:
    return [
        peer(f"p{n}", path, TailscaleIPs=[f"100.64.{n // 200 + 1}.{n % 200 + 1}"])
        for n in range(number)
    ]


def _by_ip(responses: dict[str, list[Response]]) -> Respond:
    """Respond to the pings to each IP with its list of responses, one by one."""
    remaining = {ip: iter(of_ip) for ip, of_ip in responses.items()}
    return lambda request: next(remaining[request.ip])


KINDS: dict[str, tuple[list[Response], int, str]] = {
    "direct at once": ([DIRECT_PONG], 1, "direct"),
    "direct in the end": ([DERP_PONG, DERP_PONG, DIRECT_PONG], 3, "direct"),
    "direct after a peer relay": ([PEER_RELAY_PONG, DIRECT_PONG], 2, "direct"),
    "relayed only": ([DERP_PONG] * 3, 3, "derp"),
    "peer-relayed only": ([PEER_RELAY_PONG] * 3, 3, "peer_relay"),
    "no reply": ([None] * 3, 3, "no_reply"),
    "no reply and then direct": ([None, DIRECT_PONG], 2, "direct"),
    "relayed and then no reply": ([DERP_PONG, None, None], 3, "derp"),
    "an error": ([pong(Err="no matching peer")], 1, "error"),
    "refused": ([http(b"invalid IP\n", "400 Bad Request")], 1, "error"),
    "closed without a response": ([b""], 1, "error"),
    "garbage": ([b"\xff\xfe\r\n\r\n"], 1, "error"),
    "truncated": ([DIRECT_PONG[:-5]], 1, "error"),
    "invalid JSON": ([http(b"[[")], 1, "error"),
    "null": ([http(b"null")], 1, "error"),
    "too large": ([b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 70_000], 1, "error"),
    "a length out of range": (
        [b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n{"],
        1,
        "error",
    ),
    "a number out of range": (
        [http(b'{"LatencySeconds": 1e999, "Endpoint": "192.0.2.7:1"}')],
        1,
        "error",
    ),
}


def test_each_peer_is_pinged_until_its_first_direct_pong_whatever_the_others_do(
    box: Path,
) -> None:
    """All kinds of peers in one round: the number and times of pings, and metrics."""
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
    (line,) = error_lines("keepalive", ran)
    assert line.startswith(
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
        for response, earlier, later in zip(
            responses, times[ip_of[kind]], times[ip_of[kind]][1:], strict=False
        ):
            if response is None:
                assert 0.9 <= later - earlier < 1.9, f"{kind}: the timeout, without a pause"
            else:
                assert later - earlier >= 0.9, f"{kind}: a second after a reply"

    exported = series((box / "a.prom").read_text())
    results = Counter(result for _, _, result in KINDS.values())
    for result, number in results.items():
        assert exported[f'tailscale_keepalive_peers{{result="{result}"}}'] == number
    assert (
        exported['tailscale_keepalive_peer_latency_seconds{path="direct",peer="direct-at-once"}']
        == 0.012
    )
    assert all(math.isfinite(value) for value in exported.values())


def test_count_and_ping_timeout_limit_the_pings(box: Path) -> None:
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


def test_excluded_peers_are_not_pinged_and_unknown_names_are_reported(box: Path) -> None:
    peers = [
        peer("nas", TailscaleIPs=["100.64.9.1"]),
        peer("tv", TailscaleIPs=["100.64.9.2"]),
        peer("phone", OS="android", TailscaleIPs=["100.64.9.3"]),
    ]
    options = ("--exclude-peer", "tv", "--exclude-peer", "nsa", "--exclude-os", "Android")
    with serving(box / "s", tailscaled(encoded(*peers), lambda _: DIRECT_PONG)) as server:
        ran = run(
            *("keepalive", "--socket", str(box / "s"), *options),
            *("--metrics-path", str(box / "a.prom")),
        )
    assert {request.ip for request in server.pings()} == {"100.64.9.1"}
    assert series((box / "a.prom").read_text())["tailscale_keepalive_unmatched_exclusions"] == 1
    (line,) = error_lines("keepalive", ran)
    assert line == (
        "excluding nsa: there is no such peer; run `tsfc peers --all` for a list, and correct "
        "--exclude-peer"
    )
    assert ran.status == 0


@pytest.mark.parametrize("state", ["Stopped", "NeedsLogin", "Starting", "NoState"])
def test_no_peer_is_pinged_unless_the_backend_is_running(box: Path, state: str) -> None:
    with serving(
        box / "s", tailscaled(encoded(peer("a"), BackendState=state), lambda _: DIRECT_PONG)
    ) as server:
        assert run("keepalive", "--socket", str(box / "s")) == (0, "", "")
    assert server.pings() == []


def _when_all_wait(number: int, response: bytes) -> Respond:
    """Hold all pings until `number` are open, then respond to all."""
    held: list[socket.socket] = []

    def respond(request: Request) -> None:
        held.append(request.connection)
        if len(held) == number:
            for connection in held:
                connection.sendall(response)
                connection.shutdown(socket.SHUT_WR)

    return respond


def test_all_peers_are_pinged_concurrently(box: Path) -> None:
    """The server responds to none before all pings are open."""
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


def test_the_soft_limit_on_open_files_is_raised(box: Path) -> None:
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


def test_more_peers_than_the_hard_limit_on_open_files_are_a_one_line_error(box: Path) -> None:
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
    (line,) = error_lines("keepalive", ran)
    assert line.endswith("opening a socket: Too many open files; raise LimitNOFILE")
    assert ran.status == 0
    assert 30 < len(server.pings()) < 48


def test_connecting_is_retried_while_the_backlog_is_full(box: Path) -> None:
    """More peers than the backlog holds, and a server that accepts slowly."""
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
"Peak memory of the process itself; `wait4` includes the process that started it."


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the limit on open files of this process, which runs the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"the limit on open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_a_thousand_silent_peers_take_three_timeouts_and_little_memory(box: Path) -> None:
    """At most 150 MiB. `make bench` measures the default timeout of five seconds."""
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


def test_sigterm_during_a_round_is_one_line_and_writes_no_metrics(box: Path) -> None:
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
    """Put a fake `tailscale` on PATH whose `ping` is a shell script."""
    program(
        programs,
        "tailscale",
        f'case "$*" in\n*"status --json") exec cat {box}/status.json ;;\nesac\n'
        f'for ip in "$@"; do :; done\n{ping}',
    )


def test_the_cli_pings_each_peer_as_documented(box: Path, programs: Path) -> None:
    (box / "status.json").write_bytes(encoded(*_peers(3), peer("offline", "offline")))
    _tailscale(
        box,
        programs,
        """case $ip in
*.1) echo "pong from p0 ($ip) via 192.0.2.7:41641 in 12ms" ;;
*.2) echo "pong from p1 ($ip) via DERP(fra) in 1.048s"
     echo 'direct connection not established' >&2; exit 1 ;;
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


def test_options_are_passed_to_the_cli(box: Path, programs: Path) -> None:
    (box / "status.json").write_bytes(encoded(*_peers(1)))
    _tailscale(box, programs, 'echo "pong from p0 ($ip) via 192.0.2.7:41641 in 12ms"')
    options = ("--socket", "/run/other.sock", "--count", "7", "--ping-timeout", "2.5")
    assert run("keepalive", "--source", "cli", *options, programs=programs) == (0, "", "")
    assert calls(programs, "tailscale") == [
        "--socket=/run/other.sock status --json",
        "--socket=/run/other.sock ping -c 7 --timeout=2.5s 100.64.1.1",
    ]


def test_failing_clis_are_a_one_line_error(box: Path, programs: Path) -> None:
    (box / "status.json").write_bytes(encoded(*_peers(3)))
    _tailscale(box, programs, "echo 'no matching peer' >&2; exit 1")
    ran = run("keepalive", "--source", "cli", programs=programs)
    (line,) = error_lines("keepalive", ran)
    assert line.startswith("3 of 3 peers could not be pinged, the first because: running `")
    assert line.endswith("no matching peer")
    assert ran.status == 0


def test_the_clis_run_concurrently_and_are_reaped(box: Path, programs: Path) -> None:
    """None ends before all have started; none is left, not even as a zombie."""
    (box / "status.json").write_bytes(encoded(*_peers(40)))
    with noted_processes(box) as pid_file:
        _tailscale(
            box,
            programs,
            f'echo $$ >> {pid_file}\nwhile [ "$(wc -l < {pid_file})" -lt 40 ]; do sleep 0.1; done\n'
            'echo "pong from p ($ip) via 192.0.2.7:1 in 1ms"',
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
        assert not [pid for pid in pid_file.read_text().split() if Path("/proc", pid).exists()]


def test_a_limited_number_of_clis_run_at_the_same_time(
    box: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of two starts when the one before has ended; the first two run together."""
    monkeypatch.setattr(cli_pings, "MAX_PROCESSES", 2)
    for name in ("started", "ended", "ended-before"):
        (box / name).touch()
    _tailscale(
        box,
        programs,
        f"cd {box}; wc -l < ended >> ended-before; echo >> started\n"
        'while [ "$(wc -l < started)" -lt 2 ]; do sleep 0.01; done\n'
        'echo >> ended; echo "pong from p ($ip) via 192.0.2.7:1 in 1ms"',
    )
    pings = tuple(Ping(f"p{n}", f"100.64.1.{n}") for n in range(5))
    round_ = waiting.run(
        cli_pings.ping_all(Cli((str(programs / "tailscale"),)), pings, count=1, timeout=5)
    )
    assert {peer: result.outcome for peer, (result,) in round_.results.items()} == {
        ping.peer: "direct" for ping in pings
    }
    assert round_.error is None
    ended_before = [int(line) for line in (box / "ended-before").read_text().split()]
    assert [number // 2 * 2 for number in ended_before] == [0, 0, 2, 2, 4]


@pytest.mark.parametrize(
    "trap",
    [pytest.param("", id="SIGTERM works"), pytest.param("trap '' TERM; ", id="SIGTERM is ignored")],
)
def test_sigterm_leaves_no_descendant(box: Path, programs: Path, trap: str) -> None:
    (box / "status.json").write_bytes(encoded(*_peers(5)))
    with noted_processes(box) as pid_file:
        _tailscale(
            box, programs, f"{trap}sleep 300 &\necho $! >> {pid_file}; echo $$ >> {pid_file}; wait"
        )
        with started("keepalive", "--source", "cli", programs=programs) as process:
            wait_until(lambda: len(pids_in(pid_file)) == 10, "all are pinged")
            interrupt(process, signal.SIGTERM)
            assert ended(process) == (143, "", "tsfc: ended by SIGTERM before it was done\n")
        wait_until(lambda: have_ended(pid_file), "all processes have ended")


def test_a_hanging_cli_is_terminated_and_the_others_keep_their_results(
    box: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The additional time for `tailscale ping` is shortened."""
    monkeypatch.setattr(cli_pings, "_SLACK_SECONDS", 0.3)
    monkeypatch.setattr(cli_pings, "PAUSE_SECONDS", 0.0)
    with noted_processes(box) as pid_file:
        _tailscale(
            box,
            programs,
            f"case $ip in *.2) echo $$ >> {pid_file}; sleep 300 ;; esac\n"
            'echo "pong from p ($ip) via 192.0.2.7:1 in 1ms"',
        )
        pings = (Ping("quick", "100.64.1.1"), Ping("hung", "100.64.1.2"))
        round_ = waiting.run(
            cli_pings.ping_all(Cli((str(programs / "tailscale"),)), pings, count=1, timeout=0.2)
        )
        assert [result.outcome for result in round_.results["quick"]] == ["direct"]
        assert [result.outcome for result in round_.results["hung"]] == ["error"]
        assert round_.error
        assert have_ended(pid_file)


def test_a_cli_that_vanishes_after_the_status_is_a_one_line_error(
    box: Path, programs: Path
) -> None:
    (box / "status.json").write_bytes(encoded(*_peers(2)))
    program(programs, "tailscale", f"rm {programs}/tailscale; exec cat {box}/status.json")
    ran = run("keepalive", "--source", "cli", programs=programs)
    (line,) = error_lines("keepalive", ran)
    assert "2 of 2 peers could not be pinged, the first because: running `" in line
    assert ran.status == 0
