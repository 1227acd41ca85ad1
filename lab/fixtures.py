"""Record fixtures of the unit tests from a real tailscaled: `make fixtures`.

To keep the diffs small, times start at a fixed instant, keys are derived from the
names, and peers are sorted by name. Measured values stay: bytes, handshakes, fractions
of seconds.
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
"Capture time of each status: 2026-11-23T12:53:50Z. The tests use ten seconds later."
RECORDED_FROM = 1795438491
"Time of the first observation of the recording."
INTERVAL_SECONDS, OBSERVATIONS = 10, 30
DELAY_SECONDS = 1
"Seconds from the start of a round to its observation. By then peers have responded."
CUT_AFTER, BACK_AFTER = 10, 24
"Numbers of the observations after which bravo's router drops UDP and passes it again."
TIME = re.compile(r"(?!0001)(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z")
PEER_API = re.compile(r'(?<="http://)([^"]+):\d+(?=")')
ONLINE = {"bravo": NAT.EASY, "carol": NAT.PUBLIC, "delta": NAT.NO_UDP, "echo": NAT.HARD}
"Peers of the recording."
MIXED = """
status of alpha (easy NAT) after pings to bravo (easy, direct), carol (public, tagged, the exit
node in use, a peer relay server), delta (no UDP, DERP) and echo (hard, through carol's peer
relay), but not to foxtrot (idle); golf is stopped, the key of hotel has expired, india is a sharee
"""
RECORDING = f"""
{OBSERVATIONS} statuses of alpha (easy NAT), {INTERVAL_SECONDS} s apart, each one second after
the start of a round of pings to bravo (easy), carol (public), delta (no UDP) and echo (hard);
bravo's router drops UDP after observation {CUT_AFTER}, and passes it again after observation
{BACK_AFTER}
"""
PINGED = ("bravo", "carol", "delta", "echo")


def mixed_paths() -> Generator[tuple[str, str, str]]:
    """A node with a peer of each kind, before and after `tailscale down`."""
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
            "output of `tailscale metrics print` on alpha, a moment later",
        )
        alpha.tailscale("down")
        lab.wait_until(lambda: alpha.state() == "Stopped", 30)
        yield "stopped.json", _status(alpha), "status of alpha after `tailscale down`"


def without_netmap() -> Generator[tuple[str, str, str]]:
    """A node that is alone, one that is starting, and one that is logged out."""
    with _registered({}) as lab:
        alpha = lab.node("alpha")
        yield (
            "running-without-peers.json",
            _status(alpha),
            "status of alpha, the only node of its tailnet",
        )
        os.kill(lab.control.pid, signal.SIGSTOP)
        try:
            alpha.restart()
            lab.wait_until(lambda: alpha.state() in {"NoState", "Starting"}, 30)
            yield (
                "before-netmap.json",
                _status(alpha),
                "status of alpha after a restart, while the coordination server does not respond",
            )
        finally:
            os.kill(lab.control.pid, signal.SIGCONT)
        lab.wait_until(lambda: alpha.state() == "Running", 60)
        alpha.tailscale("logout")
        lab.wait_until(lambda: alpha.state() == "NeedsLogin", 30)
        yield "needs-login.json", _status(alpha), "status of alpha after `tailscale logout`"


def oldest() -> Generator[tuple[str, str, str]]:
    """A tailnet of the oldest supported release."""
    with _registered({"bravo": NAT.EASY, "delta": NAT.NO_UDP}, version=OLDEST) as lab:
        alpha = lab.node("alpha")
        _settle(lab, alpha, direct=("bravo",), relayed=("delta",))
        yield (
            "oldest-release.json",
            _status(alpha),
            (
                f"status of alpha with tailscaled {OLDEST}, after pings to bravo (easy NAT, direct)"
                " and delta (no UDP, DERP)"
            ),
        )


def timeline() -> Generator[tuple[str, str, str]]:
    """A recording in which bravo's router drops UDP and passes it again."""
    with _registered(ONLINE) as lab:
        alpha = lab.node("alpha")
        lines: list[str] = []
        start = time.time()
        for number in range(OBSERVATIONS):
            time.sleep(max(0.0, start + number * INTERVAL_SECONDS - time.time()))
            threads = [threading.Thread(target=alpha.ping_burst, args=(name,)) for name in PINGED]
            for thread in threads:
                thread.start()
            time.sleep(DELAY_SECONDS)
            shift = RECORDED_FROM - int(start)
            observation = {
                "captured_at": round(time.time() + shift, 3),
                "status": _redacted(alpha.status()),
            }
            lines.append(_shift_times(json.dumps(observation), shift))
            if number + 1 == CUT_AFTER:
                lab.block_udp("bravo")
            if number + 1 == BACK_AFTER:
                lab.unblock_udp("bravo")
            for thread in threads:
                thread.join()
        yield "timeline.ndjson", "\n".join(lines) + "\n", RECORDING


@contextmanager
def _registered(peers: dict[str, NAT], *, version: str = NEWEST) -> Generator[Lab]:
    """A lab of alpha and these peers; one login at a time fixes the addresses."""
    with Lab(version=version) as lab:
        for name, nat in {"alpha": NAT.EASY, **peers}.items():
            lab.add(name, nat).start()
            lab.up(name)
        lab.wait_until(lambda: all(lab.node("alpha").peer(name).get("Relay") for name in peers), 60)
        yield lab


def _settle(
    lab: Lab, node: Node, *, direct: tuple[str, ...], relayed: tuple[str, ...] = ()
) -> None:
    def is_settled() -> bool:
        for name in direct + relayed:
            node.ping(name)
        return all(node.is_direct(name) for name in direct) and all(
            node.is_relayed(name) for name in relayed
        )

    lab.wait_until(is_settled, 60)


def _status(node: Node) -> str:
    text = json.dumps(_redacted(node.status()), indent=2)
    return _shift_times(text, CAPTURED_AT - int(time.time())) + "\n"


def _redacted(status: dict[str, Any]) -> dict[str, Any]:
    """Return a status with keys derived from the names, and peers sorted by name."""
    status["Self"]["PublicKey"] = _key(status["Self"])
    peers = sorted(peers_in(status), key=lambda peer: peer["HostName"])
    for peer in peers:
        peer["PublicKey"] = _key(peer)
    return status | {"Peer": {peer["PublicKey"]: peer for peer in peers} or None}


def _key(node: dict[str, Any]) -> str:
    return "nodekey:" + hashlib.sha256(node["HostName"].encode()).hexdigest()


def _shift_times(text: str, seconds: int) -> str:
    """Shift all times in a status, and replace the random ports of the peer APIs."""
    shift = timedelta(seconds=seconds)
    shifted = TIME.sub(
        lambda match: f"{(datetime.fromisoformat(match[1]) + shift).isoformat()}{match[2] or ''}Z",
        text,
    )
    return PEER_API.sub(r"\1:50000", shifted)


def record() -> None:
    """Write all fixtures, and a table of their origins."""
    lines = [
        f"Recorded by `make fixtures` from tailscaled {NEWEST} in the lab (`lab/`).\n",
        "| file | content |",
        "|---|---|",
    ]
    for scene in (mixed_paths, without_netmap, oldest, timeline):
        for name, text, origin in scene():
            print(f"lab: {name}", file=sys.stderr, flush=True)
            (FIXTURES / name).write_text(text)
            lines.append(f"| `{name}` | {' '.join(origin.split())} |")
    ORIGINS.write_text("\n".join(lines) + "\n")
