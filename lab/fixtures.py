"""Writes the fixtures of the unit tests that a real tailscaled can give: `make fixtures`.

What is the same each time, is so in the files: times begin at the same instant, keys are made of the names, peers are in the order of their names.
What is measured (bytes, handshakes, the fractions of seconds) is as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lab import NAT, OLDEST, Lab, Node
from lab.builds import NEWEST
from lab.nodes import peers_in

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures"
ORIGINS = FIXTURES / "lab.md"
CAPTURED_AT = 1795438430
"2026-11-23T12:53:50Z, which is when each status was captured, as the files have it; the tests' clock is ten seconds later."
RECORDED_FROM = 1795438491
"The beginning of the recording."
INTERVAL_SECONDS, OBSERVATIONS = 10, 30
ANSWERED_SECONDS = 1
"After the beginning of a round: the first answers are there, and no hole was punched yet."
CUT_AFTER, BACK_AFTER = 10, 24
"Of the recording: after which observations UDP is cut at bravo's router, and is back."
TIME = re.compile(r"(?!0001)(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z")
PEER_API = re.compile(r'(?<="http://)([^"]+):\d+(?=")')
ONLINE = {"bravo": NAT.EASY, "carol": NAT.PUBLIC, "delta": NAT.NO_UDP, "echo": NAT.HARD}
"The peers of the recording."
MIXED = """
the status of alpha (easy NAT), which had pinged bravo (easy, direct), carol (public, tagged, exit node in use, peer relay server), delta (no UDP, DERP)
and echo (hard, through carol's peer relay), and not foxtrot (idle); golf was stopped, the key of hotel had expired, india was a sharee
"""
RECORDING = f"""
{OBSERVATIONS} statuses of alpha (easy NAT), {INTERVAL_SECONDS} s apart, each a second after the beginning of a round of pings to bravo (easy), carol
(public), delta (no UDP) and echo (hard); UDP was cut at bravo's router after observation {CUT_AFTER}, and back after observation {BACK_AFTER}
"""
PINGED = ("bravo", "carol", "delta", "echo")


def mixed_paths() -> Generator[tuple[str, str, str]]:
    """A tailnet that has a peer of each kind, and what becomes of the node that saw it."""
    with _registered(
        ONLINE | {"foxtrot": NAT.EASY, "golf": NAT.EASY, "hotel": NAT.EASY, "india": NAT.EASY}
    ) as lab:
        alpha = lab.node("alpha")
        lab.node("carol").tailscale("set", "--advertise-exit-node", "--relay-server-port=40000")
        lab.route("carol", ["0.0.0.0/0", "::/0"])
        lab.tag("carol", ["tag:exit", "tag:server"])
        lab.node("golf").stop()
        lab.expire("hotel")
        lab.share_to("india")
        lab.wait_until(
            lambda: (
                alpha.peer("carol").get("ExitNodeOption")
                and alpha.peer("hotel").get("Expired")
                and not alpha.peer("golf")["Online"]
            ),
            30,
        )
        alpha.tailscale("set", "--exit-node=carol")
        _settle(lab, alpha, direct=("bravo", "carol"))
        lab.wait_until(lambda: alpha.ping("echo") and alpha.peer("echo")["PeerRelay"], 60)
        for name in PINGED:
            lab.wait_until(lambda: alpha.ping(name, "TSMP").get("Err") == "", 30)  # noqa: B023
        yield "mixed-paths.json", _status(alpha), MIXED
        yield (
            "usermetrics.txt",
            alpha.tailscale("metrics", "print"),
            "`tailscale metrics print` on alpha, a moment later",
        )
        alpha.tailscale("down")
        lab.wait_until(lambda: alpha.state() == "Stopped", 30)
        yield "stopped.json", _status(alpha), "the same after `tailscale down`"


def without_netmap() -> Generator[tuple[str, str, str]]:
    """A node that is alone, one that has not reached its coordination server yet, and one that was logged out."""
    with _registered({}) as lab:
        alpha = lab.node("alpha")
        yield (
            "running-without-peers.json",
            _status(alpha),
            "the status of alpha, alone in its tailnet",
        )
        os.kill(lab.control.pid, signal.SIGSTOP)
        try:
            alpha.restart()
            lab.wait_until(lambda: alpha.state() in {"NoState", "Starting"}, 30)
            yield (
                "before-netmap.json",
                _status(alpha),
                "the same after a restart of tailscaled, while the coordination server does not answer",
            )
        finally:
            os.kill(lab.control.pid, signal.SIGCONT)
        lab.wait_until(lambda: alpha.state() == "Running", 60)
        alpha.tailscale("logout")
        lab.wait_until(lambda: alpha.state() == "NeedsLogin", 30)
        yield "needs-login.json", _status(alpha), "the same after `tailscale logout`"


def oldest() -> Generator[tuple[str, str, str]]:
    """A tailnet of the oldest release that is supported."""
    with _registered({"bravo": NAT.EASY, "delta": NAT.NO_UDP}, version=OLDEST) as lab:
        alpha = lab.node("alpha")
        _settle(lab, alpha, direct=("bravo",), relayed=("delta",))
        yield (
            "oldest-release.json",
            _status(alpha),
            f"the status of alpha with tailscaled {OLDEST}, which had pinged bravo (easy NAT, direct) and delta (no UDP, DERP)",
        )


def timeline() -> Generator[tuple[str, str, str]]:
    """A recording: UDP is cut at bravo's router, and is back."""
    with _registered(ONLINE) as lab:
        alpha = lab.node("alpha")
        lines: list[str] = []
        began = time.time()
        for number in range(OBSERVATIONS):
            time.sleep(max(0.0, began + number * INTERVAL_SECONDS - time.time()))
            threads = [threading.Thread(target=alpha.ping_burst, args=(name,)) for name in PINGED]
            for thread in threads:
                thread.start()
            time.sleep(ANSWERED_SECONDS)
            moved = RECORDED_FROM - int(began)
            observation = {
                "captured_at": round(time.time() + moved, 3),
                "status": _redacted(alpha.status()),
            }
            lines.append(_moved(json.dumps(observation), moved))
            if number + 1 == CUT_AFTER:
                lab.block_udp("bravo")
            if number + 1 == BACK_AFTER:
                lab.unblock_udp("bravo")
            for thread in threads:
                thread.join()
        yield "timeline.ndjson", "\n".join(lines) + "\n", RECORDING


@contextmanager
def _registered(peers: dict[str, NAT], *, version: str = NEWEST) -> Generator[Lab]:
    """A lab of alpha and these peers, which have registered in this order, so that their addresses are the same each time."""
    with Lab(version=version) as lab:
        for name, nat in {"alpha": NAT.EASY, **peers}.items():
            lab.add(name, nat).start()
            lab.up(name)
        lab.wait_until(lambda: all(lab.node("alpha").peer(name).get("Relay") for name in peers), 60)
        yield lab


def _settle(
    lab: Lab, node: Node, *, direct: tuple[str, ...], relayed: tuple[str, ...] = ()
) -> None:
    def is_so() -> bool:
        for name in direct + relayed:
            node.ping(name)
        return all(node.is_direct(name) for name in direct) and all(
            node.is_relayed(name) for name in relayed
        )

    lab.wait_until(is_so, 60)


def _status(node: Node) -> str:
    return (
        _moved(json.dumps(_redacted(node.status()), indent=2), CAPTURED_AT - int(time.time()))
        + "\n"
    )


def _redacted(status: dict[str, Any]) -> dict[str, Any]:
    """Returns a status whose keys are made of the names, and whose peers are in the order of theirs."""
    status["Self"]["PublicKey"] = _key(status["Self"])
    peers = sorted(peers_in(status), key=lambda peer: peer["HostName"])
    for peer in peers:
        peer["PublicKey"] = _key(peer)
    return status | {"Peer": {peer["PublicKey"]: peer for peer in peers} or None}


def _key(node: dict[str, Any]) -> str:
    return "nodekey:" + hashlib.sha256(node["HostName"].encode()).hexdigest()


def _moved(text: str, seconds: int) -> str:
    """Returns a status, as text, with its times moved, and with one port for its peer APIs, which are at random ones."""
    shift = timedelta(seconds=seconds)
    moved = TIME.sub(
        lambda match: f"{(datetime.fromisoformat(match[1]) + shift).isoformat()}{match[2] or ''}Z",
        text,
    )
    return PEER_API.sub(r"\1:50000", moved)


def record() -> None:
    """Writes all of them, and how each came to be."""
    lines = [
        f"Written by `make fixtures` with tailscaled {NEWEST}, on a tailnet in network namespaces (`lab/`).\n",
        "| file | what it is |",
        "|---|---|",
    ]
    for scene in (mixed_paths, without_netmap, oldest, timeline):
        for name, text, origin in scene():
            print(f"lab: {name}", file=sys.stderr, flush=True)
            (FIXTURES / name).write_text(text)
            lines.append(f"| `{name}` | {' '.join(origin.split())} |")
    ORIGINS.write_text("\n".join(lines) + "\n")
