"""An imagined tailnet, as one of its nodes sees it.

Theory of operation
===================

The world is a clock, a queue of what will happen, and a link to each peer. A link knows two instants: from when on its path is
direct, and until when. Everything else that a status shows follows from those and from when something was last sent, so a
link is touched when something happens to it, and not when time passes or a round of keepalive finds it warm.

What tailscaled does was measured (docs/tailscale.md, "How fast"); the constants are below. In short: something sent makes a
peer active for 45 s; while it is active, tailscaled tries for a direct path; a path that no pong confirms is given up; a
restart forgets all paths, and the first thing sent after it begins anew.

Chance comes from `random.Random(text)` by `.random()` alone, which is the same everywhere, a stream for each thing.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import msgspec

from tsfc.core.clock import Boot, Instant
from tsfc.core.tailscale.status import PeerStatus, Status
from tsfc.core.watchdog.effects import Apply
from tsfc.core.watchdog.events import Observed, Performed
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.remedy import Done
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import step
from tsfc.offline.simulation.scenario import (
    ClockStep,
    ControlOutage,
    DaemonDead,
    DerpOutage,
    Event,
    Nat,
    Offline,
    Peer,
    Range,
    Readdress,
    Scenario,
    Stuck,
    Suspend,
    UdpBlocked,
    peer_names,
    seconds,
)

ACTIVE_SECONDS = 45.0
"A peer is `Active` for so long after something was sent to it (`sessionActiveTimeout`)."
LINGER_SECONDS = Range(0, 5.6)
"After that, until `CurAddr` is empty: measured."
LOST_SECONDS = Range(4.1, 6.4)
"From UDP that is cut to relay: measured; a path is trusted for 6.5 s, and there is a ping each 3 s."
FOUND_SECONDS = Range(0.2, 6.1)
"From UDP that passes again to direct, while the peer is active: measured."
KNOWN_SECONDS = 0.1
"From the first ping to direct, where no NAT is in the way, or it still knows the flow: measured."
_EASY = frozenset({Nat.EASY, Nat.CGNAT})
_BOOTED_BEFORE = 1000
"Seconds: the node is up for so long when the world begins."
_RATE = 1500
"Bytes a second of traffic."
REKEY_SECONDS = 120
"A handshake is made anew after so long (`RekeyAfterTime` of WireGuard)."
NEVER = float("inf")
ZERO_TIME = "0001-01-01T00:00:00Z"
DOWN = "asking tailscaled for status over /var/run/tailscale/tailscaled.sock: Connection refused; is tailscaled running? see `systemctl status tailscaled`"
NO_RELAY = "Tailscale could not connect to any relay server. Check your Internet connection."
NO_CONTROL = "Unable to connect to the Tailscale coordination server to synchronize the state of your tailnet. Peer reachability might degrade over time."
FAR_POLICY = ThresholdPolicy()


def punch_seconds(ours: Nat, theirs: Nat) -> float | None:
    """Returns how long after the first ping of a burst of three a path is direct; None: never. Measured, the medians."""
    if Nat.NOUDP in {ours, theirs}:
        return None
    if theirs is Nat.PUBLIC:
        return KNOWN_SECONDS
    if ours is Nat.PUBLIC:
        return 6.1 if theirs is Nat.HARD else 9.1
    return 9.0 if ours in _EASY and theirs in _EASY else None


class Answer(NamedTuple):
    """What came of one ping."""

    path: str
    "`direct`, `peer_relay` or `derp`."
    through: str
    "The address, the relay's address, or the region."


class _Link:
    """A peer, and the way to it."""

    def __init__(self, peer: Peer, name: str, number: int, suffix: str) -> None:
        self.peer = peer
        self.name = name
        self.number = number
        self.address_number = 0
        self.ip = f"100.{64 + number // 62500}.{number // 250 % 250}.{number % 250 + 2}"
        self.online = self.shown_online = True
        self.was_seen = 0.0
        "When it was last online, of one that is not."
        self.sent = -NEVER
        "When something was last sent to it, rounds of keepalive aside."
        self.is_warm = False
        "Rounds of keepalive keep it active."
        self.busy_since: float | None = None
        "There is traffic."
        self.direct_from = self.direct_until = NEVER
        self.linger = 0.0
        self.flow_until = -NEVER
        "Until when the NATs remember it, where nothing is sent any more."
        self.obstacles = 0
        "Events that keep it from being direct, far faults and cut UDP."
        self.stuck: list[_Fault] = []
        self.rx = self.tx = 0
        self.handshake = -NEVER
        self.far_state = State()
        digest = hashlib.sha256(name.encode()).hexdigest()
        self.key = f"nodekey:{digest}"
        self.fields: dict[str, Any] = {
            "ID": f"n{digest[:12]}CNTRL",
            "NodeID": number + 2,
            "PublicKey": self.key,
            "HostName": name,
            "DNSName": f"{name}.{suffix}.",
            "OS": peer.os,
            "UserID": 1,
            "TailscaleIPs": [self.ip],
            "AllowedIPs": [f"{self.ip}/32"],
            "Addrs": None,
            "CurAddr": "",
            "Relay": peer.relay,
            "PeerRelay": "",
            "RxBytes": 0,
            "TxBytes": 0,
            "Created": "2026-01-01T00:00:00Z",
            "LastWrite": ZERO_TIME,
            "LastSeen": ZERO_TIME,
            "LastHandshake": ZERO_TIME,
            "Online": True,
            "ExitNode": False,
            "ExitNodeOption": False,
            "Active": False,
            "PeerAPIURL": [f"http://{self.ip}:50000"],
            "TaildropTarget": 1,
            "NoFileSharingReason": "",
            "InNetworkMap": True,
            "InMagicSock": True,
            "InEngine": False,
        }

    def endpoint(self) -> str:
        """Returns where it is seen from outside."""
        return f"203.0.113.{self.number % 250 + 1}:{41641 + self.address_number}"


class _Fault:
    """An event of the kind `stuck` while it lasts."""

    def __init__(self, event: Stuck) -> None:
        self.event = event
        self.is_cured = False
        self.has_ended = False


class World:
    """The tailnet at an instant. It only goes forward."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.now = 0.0
        "Seconds since the beginning."
        self.daemon_down_seconds = 0.0
        "So far: tailscaled was stopped, or started and not yet `Running`."
        self.far_restarts = 0
        self._seed = seed
        self._chances: dict[str, random.Random] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._queued = 0
        names = [(peer, name) for peer in scenario.peers for name in peer_names(peer)]
        self._links = {
            name: _Link(peer, name, number, "tail1.ts.net")
            for number, (peer, name) in enumerate(names)
        }
        self._keepalive = seconds(scenario.node.keepalive)
        self._is_continuous = 0 < self._keepalive <= ACTIVE_SECONDS
        self._last_round = -NEVER
        self._next_round = (
            self._draw("keepalive", Range(0, self._keepalive)) if self._keepalive else NEVER
        )
        self._cold: dict[str, _Link] = dict(self._links)
        self._run_at: float | None = None
        self._derp_outages = self._control_outages = self._deaths = 0
        self._down_since: float | None = None
        self._is_starting = False
        self._suspended_at: float | None = None
        self._resumed: list[tuple[float, float]] = []
        self._clock_offset = 0.0
        self._times: dict[int, str] = {}
        self._faults: list[_Fault] = []
        self._relay_server = next(
            (link for link in self._links.values() if link.peer.serves_relay), None
        )
        if scenario.node.settled and self._is_continuous:
            self._settle()
        for number, event in enumerate(scenario.events):
            self._at(seconds(event.at), self._beginning(event, f"event {number}"))
        for link in self._links.values():
            self._begin_life(link)

    def _settle(self) -> None:
        """A round of keepalive was just now, and all paths were found long ago."""
        self._last_round = 0.0
        self._cold = {}
        for link in self._links.values():
            link.is_warm = True
            link.direct_from = 0.0 if self._holds(link) else NEVER

    # What may be asked of it

    def advance(self, to: float) -> None:
        """Plays all that happens up to an instant, that instant included."""
        queue = self._queue
        while True:
            due = queue[0][0] if queue else NEVER
            if self._next_round < due and self._next_round <= to:
                self.now = self._next_round
                self._round()
            elif due <= to:
                at, _, happen = heapq.heappop(queue)
                self.now = max(self.now, at)
                happen()
            else:
                break
        self.now = max(self.now, to)

    def next_watchdog_run(self) -> float:
        """Returns when the watchdog's timer fires next, and plays all that happens before; while the node sleeps it does not fire."""
        interval, jitter = seconds(self.scenario.watchdog.interval), self.scenario.watchdog.jitter
        at = (
            0.0
            if self._run_at is None
            else self._run_at + interval + self._draw("watchdog", Range(0, jitter))
        )
        slept = sum(end - begin for begin, end in self._resumed)
        self.advance(at)
        while (
            self._suspended_at is not None
            or sum(end - begin for begin, end in self._resumed) > slept
        ):
            while self._suspended_at is not None:
                self.advance(self._queue[0][0])
            now_slept = sum(end - begin for begin, end in self._resumed)
            at += now_slept - slept
            slept = now_slept
            self.advance(at)
        self._run_at = at
        return at

    def instant(self) -> Instant:
        """Returns what the clocks of the node show."""
        return Instant(
            max(0, int(self._wall(self.now))),
            Boot("00000000-0000-4000-8000-000000000000", int(self.now) + _BOOTED_BEFORE),
        )

    def observe(self) -> bytes | str:
        """Returns the status that tailscaled tells, or, where it tells none, why."""
        if self._deaths or (self._down_since is not None and not self._is_starting):
            return DOWN
        return msgspec.json.encode(self._document(is_running=self._down_since is None))

    def ping(self, ip: str) -> Answer | None:
        """Sends one ping, with all that it has as consequences, and returns the answer; None where none comes."""
        link = next((link for link in self._links.values() if link.ip == ip), None)
        if link is None or self._is_unable():
            return None
        self._send(link)
        if not link.online:
            return None
        if self._is_direct(link):
            return Answer("direct", link.endpoint())
        relay = self._peer_relay(link)
        if relay:
            return Answer("peer_relay", relay)
        return None if self._derp_outages else Answer("derp", link.peer.relay)

    def restart(self) -> bool:
        """Restarts tailscaled, and returns whether that changed anything for the better: whether a fault is gone by it."""
        cured = [
            fault
            for fault in self._faults
            if fault.event.side == "near"
            and fault.event.restart != "nothing"
            and not fault.is_cured
        ]
        for fault in cured:
            fault.is_cured = True
            if fault.event.restart == "cures-for":
                self._after(self._draw("cured", fault.event.cured), partial(self._relapse, fault))
        for link in self._links.values():
            self._forget(link)
        self._cold = dict(self._links)
        self._last_round = -NEVER
        if not self._deaths:
            self._stop()
            self._after(seconds(self.scenario.node.start), self._start)
        return bool(cured)

    def curable(self, name: str) -> bool:
        """Reports whether a peer is not direct for a fault alone that a restart of this node's tailscaled would cure now."""
        link = self._links.get(name)
        if (
            link is None
            or not link.online
            or link.obstacles
            or punch_seconds(self.scenario.node.nat, link.peer.nat) is None
            or self._is_direct(link)
        ):
            return False
        faults = [fault for fault in link.stuck if not fault.is_cured]
        return bool(faults) and all(
            fault.event.side == "near" and fault.event.restart != "nothing" for fault in faults
        )

    # Time

    def _draw(self, what: str, span: Range) -> float:
        low, high = seconds(span.min), seconds(span.max)
        chance = self._chances.get(what)
        if chance is None:
            chance = self._chances[what] = random.Random(f"{self._seed}/{what}")  # noqa: S311 - it is to be the same each time
        return round(low + chance.random() * (high - low), 3)

    def _at(self, at: float, happen: Callable[[], None]) -> None:
        self._queued += 1
        heapq.heappush(self._queue, (round(at, 3), self._queued, happen))

    def _after(self, span: float, happen: Callable[[], None]) -> None:
        self._at(self.now + span, happen)

    def _wall(self, at: float) -> float:
        return self.scenario.start + self._clock_offset + at

    # Paths

    def _sent(self, link: _Link) -> float:
        """Returns when something was last sent."""
        if link.busy_since is not None and not self._is_unable():
            return self.now
        return max(link.sent, self._last_round) if link.is_warm else link.sent

    def _is_active(self, link: _Link) -> bool:
        return self.now - self._sent(link) < ACTIVE_SECONDS

    def _is_direct(self, link: _Link) -> bool:
        return (
            link.direct_from <= self.now < link.direct_until
            and self.now < self._sent(link) + ACTIVE_SECONDS + link.linger
        )

    def _peer_relay(self, link: _Link) -> str:
        """Returns the path through the peer relay; empty where there is none."""
        server = self._relay_server
        if (
            server is None
            or server is link
            or not server.online
            or Nat.NOUDP in {self.scenario.node.nat, link.peer.nat}
            or not self._is_active(link)
        ):
            return ""
        return f"{server.endpoint()}:vni:{link.number + 1}"

    def _holds(self, link: _Link) -> bool:
        """Reports whether a direct path is possible, once it is found."""
        return (
            link.online
            and not link.obstacles
            and all(fault.is_cured for fault in link.stuck)
            and punch_seconds(self.scenario.node.nat, link.peer.nat) is not None
        )

    def _send(self, link: _Link) -> None:
        """Something is sent: a path that is not there is looked for from now on."""
        if not self._is_active(link) and not self._is_direct(link):
            self._look_for_path(link)
        link.sent = self.now

    def _look_for_path(self, link: _Link) -> None:
        link.direct_from = link.direct_until = NEVER
        link.linger = self._draw(f"linger {link.name}", LINGER_SECONDS)
        takes = punch_seconds(self.scenario.node.nat, link.peer.nat)
        if takes is None or not self._holds(link):
            return
        if self.now < link.flow_until:
            takes = KNOWN_SECONDS
        # Without a relay there is nothing to ask the other side through, to open its NAT.
        if takes == KNOWN_SECONDS or not self._derp_outages:
            link.direct_from = self.now + takes

    def _reconsider(self, link: _Link) -> None:
        """Something changed that a path depends on."""
        is_there = link.direct_from <= self.now < link.direct_until
        is_looked_for = self.now < link.direct_from < NEVER
        if not self._holds(link):
            if is_there:
                link.direct_until = min(
                    link.direct_until, self.now + self._draw(f"lost {link.name}", LOST_SECONDS)
                )
            else:
                link.direct_from = link.direct_until = NEVER
        elif is_there:
            link.direct_until = NEVER
        elif not is_looked_for and not self._derp_outages and self._is_active(link):
            link.direct_from = self.now + self._draw(f"found {link.name}", FOUND_SECONDS)
            link.direct_until = NEVER

    def _cool(self, link: _Link) -> None:
        """Rounds of keepalive do not reach it any more: what they did stays."""
        link.sent = self._sent(link)
        if self._is_direct(link):
            link.flow_until = link.sent + ACTIVE_SECONDS + seconds(link.peer.mapping)
        link.is_warm = False

    def _forget(self, link: _Link) -> None:
        """Tailscaled ended, and with it all that it knew of a peer; the NATs remember for a while."""
        if self._is_direct(link):
            link.flow_until = self.now + seconds(link.peer.mapping)
        self._count_traffic(link)
        link.sent = link.handshake = -NEVER
        link.rx = link.tx = 0
        link.is_warm = False
        link.direct_from = link.direct_until = NEVER

    def _round(self) -> None:
        """A round of keepalive."""
        self._next_round = round(
            self.now + self._keepalive + self._draw("keepalive jitter", Range(0, 0.1)), 3
        )
        if self._is_unable():
            return
        if not self._is_continuous:
            for link in self._links.values():
                if link.shown_online:
                    self._send(link)
                    if self._is_direct(link) or link.direct_from < NEVER:
                        link.flow_until = self.now + ACTIVE_SECONDS + seconds(link.peer.mapping)
            return
        reached = [link for link in self._cold.values() if link.shown_online]
        for link in reached:
            self._send(link)
            link.is_warm = True
            del self._cold[link.name]
        self._last_round = self.now

    # The daemon

    def _is_unable(self) -> bool:
        """Reports whether tailscaled, or the whole node, can send nothing now."""
        return bool(self._deaths) or self._down_since is not None or self._suspended_at is not None

    def _stop(self) -> None:
        if self._down_since is None:
            self._down_since = self.now
        self._is_starting = False

    def _start(self) -> None:
        """Tailscaled is there again; it is `Running` as soon as the control server has told it of the peers."""
        if self._deaths or self._down_since is None:
            return
        self._is_starting = True
        if not self._control_outages:
            self.daemon_down_seconds += self.now - self._down_since
            self._down_since = None
            self._is_starting = False

    def _learn(self) -> None:
        """The control server tells who is online."""
        for link in self._links.values():
            link.shown_online = link.online

    # Life of a peer

    def _begin_life(self, link: _Link) -> None:
        if link.peer.phone is not None:
            self._after(
                self._draw(f"phone {link.name}", link.peer.phone.online),
                lambda: self._phone_off(link),
            )
        if link.peer.traffic is not None:
            self._after(
                self._draw(f"traffic {link.name}", link.peer.traffic.every),
                lambda: self._traffic_on(link),
            )
        if link.peer.nat is Nat.CGNAT:
            self._after(
                self._draw(f"readdress {link.name}", link.peer.readdress),
                lambda: self._readdress_again(link),
            )
        if link.peer.watchdog:
            self._after(
                self._draw(f"far watchdog {link.name}", Range(0, 60)), lambda: self._far_run(link)
            )

    def _phone_off(self, link: _Link) -> None:
        self._set_online(link, is_online=False)
        if link.peer.phone is not None:
            self._after(
                self._draw(f"phone {link.name}", link.peer.phone.offline),
                lambda: self._phone_on(link),
            )

    def _phone_on(self, link: _Link) -> None:
        self._set_online(link, is_online=True)
        if link.peer.phone is not None:
            self._after(
                self._draw(f"phone {link.name}", link.peer.phone.online),
                lambda: self._phone_off(link),
            )

    def _set_online(self, link: _Link, *, is_online: bool) -> None:
        if link.online == is_online:
            return
        if not is_online:
            self._cool(link)
            link.flow_until = -NEVER
            link.was_seen = self.now
            self._cure_far(link)
        link.online = is_online
        if not self._control_outages:
            link.shown_online = is_online
        if is_online:
            link.direct_from = link.direct_until = NEVER
            link.sent = -NEVER
            self._cold[link.name] = link
        self._reconsider(link)

    def _traffic_on(self, link: _Link) -> None:
        self._send(link)
        link.busy_since = link.handshake = self.now
        if link.peer.traffic is not None:
            self._after(
                self._draw(f"traffic {link.name}", link.peer.traffic.lasts),
                lambda: self._traffic_off(link),
            )

    def _traffic_off(self, link: _Link) -> None:
        link.sent = self._sent(link)
        self._count_traffic(link)
        link.busy_since = None
        link.flow_until = (
            link.sent + ACTIVE_SECONDS + seconds(link.peer.mapping)
            if self._is_direct(link)
            else link.flow_until
        )
        if link.peer.traffic is not None:
            self._after(
                self._draw(f"traffic {link.name}", link.peer.traffic.every),
                lambda: self._traffic_on(link),
            )

    def _count_traffic(self, link: _Link) -> None:
        if link.busy_since is not None:
            size = int((self.now - link.busy_since) * _RATE)
            link.rx += size
            link.tx += size
            link.busy_since = self.now
            link.handshake = (
                self.now - self.now % REKEY_SECONDS
                if self.now - link.handshake > REKEY_SECONDS
                else link.handshake
            )

    def _readdress(self, link: _Link) -> None:
        """The path by the old address is lost, and one by the new one found, as where UDP is cut and passes again."""
        link.address_number = (link.address_number + 1) % 1000
        link.flow_until = -NEVER
        if link.direct_from <= self.now < link.direct_until:
            link.direct_until = self.now + self._draw(f"lost {link.name}", LOST_SECONDS)
            self._at(link.direct_until, lambda: self._reconsider(link))
        else:
            self._reconsider(link)

    def _readdress_again(self, link: _Link) -> None:
        self._readdress(link)
        self._after(
            self._draw(f"readdress {link.name}", link.peer.readdress),
            lambda: self._readdress_again(link),
        )

    def _far_run(self, link: _Link) -> None:
        """The watchdog at the other end, which sees this node as its only peer, by the same path."""
        self._after(60, lambda: self._far_run(link))
        if not link.online or self._suspended_at is not None:
            return
        us = PeerStatus(
            dns_name="self.tail1.ts.net.",
            online=self._down_since is None,
            cur_addr="192.0.2.1:41641" if self._is_direct(link) else "",
        )
        now = Instant(int(self.scenario.start + self.now))
        observed = Observed(Status(backend_state="Running", peer={"us": us}))
        transition = step(link.far_state, observed, now=now, policy=FAR_POLICY)
        link.far_state = transition.state
        for effect in transition.effects:
            if not isinstance(effect, Apply):
                continue
            performed = Performed(effect.attempt, Done())
            link.far_state = step(link.far_state, performed, now=now, policy=FAR_POLICY).state
            self.far_restarts += 1
            self._cure_far(link)
            self._readdress(link)

    def _cure_far(self, link: _Link) -> None:
        for fault in link.stuck:
            if fault.event.side == "far" and fault.event.restart != "nothing":
                fault.is_cured = True

    # Events

    def _beginning(self, event: Event, what: str) -> Callable[[], None]:
        return lambda: self._begin(event, what)

    def _begin(self, event: Event, what: str) -> None:
        end = self._effect(event)
        if event.lasts is None:
            return
        lasts = (
            self._draw(f"{what} lasts", event.lasts)
            if isinstance(event.lasts, Range)
            else seconds(event.lasts)
        )

        def over() -> None:
            end()
            if event.repeat is not None:
                self._after(
                    self._draw(f"{what} repeats", event.repeat), self._beginning(event, what)
                )

        self._after(lasts, over)

    def _effect(self, event: Event) -> Callable[[], None]:
        """Has an event begin, and returns what ends it."""
        match event:
            case Stuck():
                return self._get_stuck(event)
            case UdpBlocked():
                return self._block(self._named(event.peers))
            case DerpOutage():
                return self._cut_off_derp()
            case ControlOutage():
                return self._cut_off_control()
            case DaemonDead():
                return self._die()
            case Offline():
                return self._go_offline(self._named(event.peers))
            case Suspend():
                return self._sleep()
            case ClockStep():
                return self._set_clock(event.by)
            case Readdress():
                return self._move(self._named(event.peers))

    def _named(self, names: Iterable[str] | None) -> list[_Link]:
        wanted = None if names is None else set(names)
        return [
            link
            for link in self._links.values()
            if wanted is None or link.name in wanted or link.peer.name in wanted
        ]

    def _get_stuck(self, event: Stuck) -> Callable[[], None]:
        fault = _Fault(event)
        links = self._named(event.peers)
        self._faults.append(fault)
        for link in links:
            link.stuck.append(fault)
            self._reconsider(link)

        def end() -> None:
            fault.has_ended = True
            self._faults.remove(fault)
            for link in links:
                link.stuck.remove(fault)
                self._reconsider(link)

        return end

    def _relapse(self, fault: _Fault) -> None:
        if fault.has_ended:
            return
        fault.is_cured = False
        for link in self._named(fault.event.peers):
            self._reconsider(link)

    def _block(self, links: list[_Link]) -> Callable[[], None]:
        for link in links:
            link.obstacles += 1
            self._reconsider(link)

        def end() -> None:
            for link in links:
                link.obstacles -= 1
                self._reconsider(link)

        return end

    def _cut_off_derp(self) -> Callable[[], None]:
        self._derp_outages += 1

        def end() -> None:
            self._derp_outages -= 1
            for link in self._links.values():
                self._reconsider(link)

        return end

    def _cut_off_control(self) -> Callable[[], None]:
        self._control_outages += 1

        def end() -> None:
            self._control_outages -= 1
            if not self._control_outages:
                self._learn()
                if self._is_starting:
                    self._start()

        return end

    def _set_clock(self, by: float) -> Callable[[], None]:
        self._clock_offset += by
        return lambda: None

    def _move(self, links: list[_Link]) -> Callable[[], None]:
        for link in links:
            self._readdress(link)
        return lambda: None

    def _sleep(self) -> Callable[[], None]:
        self._suspended_at = self.now
        return self._resume

    def _die(self) -> Callable[[], None]:
        self._deaths += 1
        self._stop()
        for link in self._links.values():
            self._forget(link)
        self._cold = dict(self._links)
        self._last_round = -NEVER

        def end() -> None:
            self._deaths -= 1
            self._start()

        return end

    def _go_offline(self, links: list[_Link]) -> Callable[[], None]:
        for link in links:
            self._set_online(link, is_online=False)

        def end() -> None:
            for link in links:
                self._set_online(link, is_online=True)

        return end

    def _resume(self) -> None:
        """Nothing was sent for long: all that was active is so no more."""
        begun = self.now if self._suspended_at is None else self._suspended_at
        self._resumed.append((begun, self.now))
        self._suspended_at = None
        for link in self._links.values():
            self._cool(link)
            if self.now - link.sent > ACTIVE_SECONDS:
                link.direct_from = link.direct_until = NEVER
                self._cold[link.name] = link
            else:
                link.is_warm = True

    # What a status shows

    def _document(self, *, is_running: bool) -> dict[str, Any]:
        links = self._links.values()
        health = [
            *([NO_RELAY] if self._derp_outages else []),
            *([NO_CONTROL] if self._control_outages else []),
        ]
        own = {
            "ID": "nselfCNTRL",
            "NodeID": 1,
            "PublicKey": f"nodekey:{0:064x}",
            "HostName": "self",
            "DNSName": "self.tail1.ts.net.",
            "OS": "linux",
            "UserID": 1,
            "TailscaleIPs": ["100.64.0.1"] if is_running else None,
            "Addrs": ["192.0.2.1:41641"],
            "CurAddr": "",
            "Relay": "fra",
            "PeerRelay": "",
            "RxBytes": 0,
            "TxBytes": 0,
            "Created": "2026-01-01T00:00:00Z",
            "LastWrite": ZERO_TIME,
            "LastSeen": ZERO_TIME,
            "LastHandshake": ZERO_TIME,
            "Online": not self._control_outages,
            "ExitNode": False,
            "ExitNodeOption": False,
            "Active": False,
            "InNetworkMap": is_running,
            "InMagicSock": False,
            "InEngine": False,
        }
        tailnet = {"Name": "example.com", "MagicDNSSuffix": "tail1.ts.net", "MagicDNSEnabled": True}
        return {
            "Version": "1.102.3-t53a0d659a",
            "TUN": True,
            "BackendState": "Running" if is_running else "NoState",
            "HaveNodeKey": True,
            "AuthURL": "",
            "TailscaleIPs": ["100.64.0.1"] if is_running else None,
            "Self": own,
            "Health": health,
            "MagicDNSSuffix": "tail1.ts.net" if is_running else "",
            "CurrentTailnet": tailnet if is_running else None,
            "CertDomains": None,
            "ExtraRecords": None,
            "Peer": {link.key: self._shown(link) for link in links} if is_running else None,
            "User": {"1": {"ID": 1, "LoginName": "user@example.com", "DisplayName": "User"}}
            if is_running
            else None,
            "ClientVersion": None,
        }

    def _shown(self, link: _Link) -> dict[str, Any]:
        fields = link.fields
        is_direct, is_active = self._is_direct(link), self._is_active(link)
        self._count_traffic(link)
        fields["Online"] = link.shown_online
        fields["LastSeen"] = ZERO_TIME if link.shown_online else self._time(link.was_seen)
        fields["Active"] = is_active
        fields["CurAddr"] = link.endpoint() if is_direct else ""
        fields["PeerRelay"] = "" if is_direct else self._peer_relay(link)
        fields["LastWrite"] = self._time(self._sent(link))
        fields["LastHandshake"] = self._time(link.handshake)
        fields["RxBytes"], fields["TxBytes"] = link.rx, link.tx
        fields["InEngine"] = link.handshake > -NEVER
        return fields

    def _time(self, at: float) -> str:
        """Returns an instant as tailscaled writes it; its zero time for never."""
        if at == -NEVER:
            return ZERO_TIME
        wall = self._wall(at)
        key = int(wall)
        cached = self._times.get(key)
        if cached is None:
            self._times.clear()
            cached = self._times[key] = datetime.fromtimestamp(max(0, key), UTC).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            )
        return cached
