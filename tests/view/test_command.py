"""`tsfc peers` and `tsfc explain`: sources, errors, pings and refreshes."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from support.captures import TIMELINE, seen, text
from support.processes import (
    UNPRIVILEGED,
    ended,
    error_lines,
    have_ended,
    interrupt,
    noted_processes,
    pids_in,
    run,
    started,
    wait_until,
)
from support.programs import program
from support.servers import http, serving
from support.statuses import encoded, peer

from .node import NOW, Node, rows


def test_without_the_watchdogs_snapshot_there_is_a_warning_and_the_rest(node: Node) -> None:
    """Peers on relay come first all the same."""
    ran = node.run(("peers",), peer("a"), peer("b", "derp"), peer("c", "offline"))
    assert (ran.status, ran.stderr) == (0, "")
    warning = (
        f"reading {node.snapshot}: No such file or directory, so the watchdog's verdicts are "
        "unknown; run the watchdog, or set --watchdog-metrics\n"
    )
    assert warning in ran.stdout
    cells = {name: cells[-1] for name, cells in rows(ran.stdout).items()}
    assert list(cells.items()) == [("b", "unknown"), ("a", "unknown"), ("c", "not watched")]
    ran = node.run(("explain", "b"), peer("b", "derp"))
    assert "The watchdog's verdict is unknown.\n" in ran.stdout
    assert warning in ran.stdout


def test_the_pause_file_of_the_watchdog_is_known(node: Node, box: Path) -> None:
    """Of its last run, which may be that of an instance."""
    policy = ("--policy", "guarded", "--pause", str(box / "pause"))
    node.run_watchdog(NOW - 800, peer("nas"), policy=policy)
    node.run_watchdog(NOW - 700, peer("nas", "derp"), policy=policy)
    assert "no restart now" not in node.run(("peers",), peer("nas", "derp")).stdout
    (box / "pause").touch()
    held = f"watchdog: no restart now: paused by {box}/pause\n"
    assert held in node.run(("peers",), peer("nas", "derp")).stdout


def test_the_commands_judge_as_the_watchdog_would_in_this_second(box: Path) -> None:
    """They know when tailscaled started, and whether the host was rebooted."""
    socket, metrics = box / "sock", box / "watchdog.prom"
    source = ("--socket", str(socket), "--watchdog-metrics", str(metrics))
    with serving(socket, lambda _: http(encoded(peer("nas", "derp")))):
        ran = run(
            *("watchdog", "--socket", str(socket), "--unit", "none", "--policy", "guarded"),
            *("--state-dir", str(box / "state"), "--metrics-path", str(metrics)),
        )
        assert ran.status == 0
        starting = "watchdog: no restart now: tailscaled started less than 5 minutes ago\n"
        assert starting in run("peers", *source).stdout
        assert rows(run("peers", *source).stdout)["nas"][-1].startswith("waiting, ")

        snapshot = json.loads((box / "watchdog.json").read_text())
        snapshot["state"]["last_success"]["boot"]["id"] = "another"
        (box / "watchdog.json").write_text(json.dumps(snapshot))
        assert rows(run("peers", *source).stdout)["nas"][-1] == "just detected"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x 1\n", id="metrics"),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"{}", id="without its fields"),
        pytest.param(b'{"at":{"unix":-1},"policy":{},"state":{}}', id="bad values"),
    ],
)
def test_a_file_that_is_no_snapshot_is_one_warning(node: Node, text: bytes) -> None:
    node.snapshot.write_bytes(text)
    ran = node.run(("peers",), peer("a"))
    assert (ran.status, ran.stderr) == (0, "")
    prefix = f"reading {node.snapshot}: "
    assert len([line for line in ran.stdout.splitlines() if line.startswith(prefix)]) == 1


@pytest.mark.parametrize("command", [("peers",), ("explain", "a")])
def test_a_warning_that_names_a_path_is_one_printable_line(
    node: Node, command: tuple[str, ...]
) -> None:
    node.metrics = node.directory / "\x1b[31m\n\u202e.prom"
    ran = node.run(command, peer("a"))
    assert (ran.status, ran.stderr) == (0, "")
    lines = ran.stdout.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert len([line for line in lines if line.startswith("reading ")]) == 1


def test_an_unprivileged_user_can_show_the_peers(node: Node) -> None:
    node.directory.chmod(0o755)
    node.run_watchdog(NOW - 60, peer("nas", "derp"))
    node.status.write_bytes(encoded(peer("nas", "derp")))
    ran = run("peers", *node.options(), around=UNPRIVILEGED)
    assert (ran.status, ran.stderr) == (0, "")
    assert "waiting" in ran.stdout or "restart in" in ran.stdout


@pytest.mark.parametrize("command", [("peers",), ("explain", "nas")])
def test_an_unavailable_tailscaled_is_one_error(box: Path, command: tuple[str, ...]) -> None:
    ran = run(*command, "--socket", f"{box}/none.sock", "--source", "localapi")
    assert (ran.status, ran.stdout) == (1, "")
    (line,) = error_lines(command[0], ran)
    assert "is tailscaled running?" in line


def test_a_stopped_node_has_no_peers(node: Node) -> None:
    ran = node.run(("peers",), peer("nas"), BackendState="Stopped")
    assert ran.stdout.startswith("self is Stopped, tailscaled 1.102.3\n")
    assert "nas" not in ran.stdout
    ran = node.run(("explain", "nas"), peer("nas"), BackendState="Stopped")
    (line,) = error_lines("explain", ran)
    assert line == (
        "explaining nas: tailscaled is Stopped, not Running, and reports no peers; "
        "run `tailscale up`"
    )


def test_watch_continues_when_tailscaled_is_unavailable(box: Path) -> None:
    """A signal ends it, as it ends every command."""
    with started(
        "peers", "--watch", "0.05", "--socket", f"{box}/none", "--source", "localapi"
    ) as process:
        assert process.stderr
        assert b"is tailscaled running?" in process.stderr.readline()
        assert b"is tailscaled running?" in process.stderr.readline()
        interrupt(process, signal.SIGINT)
        assert ended(process).status == 130


def test_ping_shows_the_latency_of_each_peer(node: Node) -> None:
    """The fake tailscaled responds to a ping over the path of the peer."""
    socket = node.directory / "s"
    with started("stand-in", "--capture", str(TIMELINE), "--socket", str(socket)):
        wait_until(socket.exists, "the stand-in listens")
        arguments = (
            *("peers", "--ping"),
            *("--socket", str(socket)),
            *("--watchdog-metrics", str(node.metrics)),
        )
        cells = rows(run(*arguments).stdout)
        document = json.loads(run(*arguments, "--format", "json").stdout)
    assert cells
    assert all(re.fullmatch(r"[\d.]+ ms", row[-2]) for row in cells.values())
    assert {row["peer"]: row["ping"]["result"] for row in document["peers"]} == {
        row["peer"]: row["path"] for row in document["peers"]
    }
    assert all(0 <= row["ping"]["latency_seconds"] < 5 for row in document["peers"])


def test_explain_pings_one_peer_until_it_replies_directly(node: Node) -> None:
    """At most three times; the node itself and a peer without an IP are not pinged."""
    socket = node.directory / "s"
    capture = node.directory / "capture"
    peers = (peer("near"), peer("far", "derp"), peer("odd", TailscaleIPs=[]))
    capture.write_text(text([seen(NOW, *peers)]))
    with started("stand-in", "--capture", str(capture), "--socket", str(socket)):
        wait_until(socket.exists, "the stand-in listens")

        def pings(name: str) -> tuple[list[str | None], list[str]]:
            ran = run(
                *("explain", name, "--ping", "--format", "json", "--socket", str(socket)),
                *("--watchdog-metrics", str(node.metrics)),
            )
            assert (ran.status, ran.stderr) == (0, "")
            document = json.loads(ran.stdout)
            last = document["peer"] and document["peer"]["ping"]
            results = [result["result"] for result in document["pings"]]
            assert results[-1:] == ([last["result"]] if last else [])
            return results, document["unread"][1:]

        assert pings("near") == (["direct"], [])
        assert pings("far") == (["derp"] * 3, [])
        assert pings("odd") == ([], ["pinging odd: it has no Tailscale IP"])
        assert pings("self") == ([], [])


@pytest.mark.parametrize("command", [("peers",), ("explain", "nas"), ("doctor",)])
def test_sigterm_ends_the_program_that_is_asked(box: Path, command: tuple[str, ...]) -> None:
    with noted_processes(box) as pid_file:
        cli = program(box, "hanging", f"echo $$ >> {pid_file}; exec sleep 300")
        with started(*command, "--source", "cli", "--tailscale", str(cli)) as process:
            wait_until(lambda: pids_in(pid_file), "the program runs")
            interrupt(process, signal.SIGTERM)
            assert ended(process) == (143, "", "tsfc: ended by SIGTERM before it was done\n")
        wait_until(lambda: have_ended(pid_file), "the program has ended")
