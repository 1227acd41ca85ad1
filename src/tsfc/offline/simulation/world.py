"""A simulated tailnet, as one of its nodes sees it.

Theory of operation
===================

The world is a clock with a queue of callbacks (`agenda`) and a link to each peer. A
link stores when its path becomes direct and when it stops being direct. The rest of a
status follows from these two times and from the last packet. So a link changes when an
event changes it, not with the passing of time or with a round of keepalive that finds
the peer active.

The times of tailscaled were measured (docs/tailscale.md, "How fast"). A packet makes a
peer active for 45 s. While it is active, tailscaled tries to find a direct path. A path
without a pong is given up. A restart forgets all paths; the first packet after it
starts the search again.

Events and the habits of peers are generators. Code before a `yield` begins an event,
code after it ends the event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Boot, Instant
from tsfc.core.tailscale.ping import ERROR, NO_REPLY, PingKind, PingOutcome, PingResult
from tsfc.core.tailscale.status import PeerStatus, Status
from tsfc.core.watchdog.effects import Apply
from tsfc.core.watchdog.events import Observed, Performed
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.remedy import Done, Remedy
from tsfc.core.watchdog.step import step
from tsfc.offline.simulation.agenda import NEVER, Agenda
from tsfc.offline.simulation.faults import Fault, PortFault, StuckFault, cures, remedy_for
from tsfc.offline.simulation.harm import Harm
from tsfc.offline.simulation.link import (
    ACTIVE_SECONDS,
    KNOWN_SECONDS,
    Link,
    can_be_direct,
    count_traffic,
    cure_far_faults,
    endpoint,
    forget_path,
    hole_punch_seconds,
    ip_of,
    is_active,
    is_answering,
    is_direct,
    is_path_valid,
)
from tsfc.offline.simulation.scenario import (
    BlockedPort,
    ClockStep,
    ControlOutage,
    DaemonDead,
    DeadData,
    DerpOutage,
    Event,
    Mode,
    Nat,
    NodeEvent,
    Offline,
    PathEvent,
    Phone,
    Readdress,
    RestartFails,
    Scenario,
    Sleep,
    Stuck,
    StuckNat,
    Suspend,
    Traffic,
    UdpBlocked,
    WanChange,
    peer_names,
)
from tsfc.offline.simulation.spans import Range, span_range
from tsfc.offline.simulation.status_document import (
    ZERO_TIME,
    NodeView,
    node_status,
    peer_fields,
    peer_key,
    peer_status,
    status_document,
    timestamp,
)

LINGER_SECONDS = span_range(0, 5.6)
"From idle until `CurAddr` is empty: measured."
LOST_SECONDS = span_range(4.1, 6.4)
"From blocked UDP to relay: measured. Pings are 3 s apart, a path is trusted for 6.5 s."
FOUND_SECONDS = span_range(0.2, 6.1)
"From unblocked UDP to direct, while the peer is active: measured."
CONTROL_LAG = {"refuses": span_range(5, 15), "silent": span_range(105, 105)}
"From an outage of the control server to `Self.Online` false: measured."
DERP_LAG = {"refuses": span_range(12, 16), "silent": span_range(92, 117)}
"From an outage of the relays to the health message: measured."
ADDRESS_LAG = span_range(6, 10)
"From a new public address of the node to `Self.Addrs`: measured."
NETCHECK_LAG = span_range(6, 26)
"From UDP that is blocked or not any more to `Self.Addrs`: measured."
FLAP_SECONDS = 3.5
"From one change of a path to the next while relays are silent: measured, 2 to 5."
_KEEPALIVE_JITTER = span_range(0, 0.1)
_FAR_INTERVAL_SECONDS = 60
_UPTIME_SECONDS = 1000
"Uptime of the node at the beginning."
PORT = 41641
"The configured UDP port of the node."
DOWN = (
    "asking tailscaled for status over /var/run/tailscale/tailscaled.sock:"
    " Connection refused; is tailscaled running? see `systemctl status tailscaled`"
)
"Fault of an observation while tailscaled is down."
FAR_POLICY = ThresholdPolicy()
LATENCY_SECONDS = {
    PingOutcome.DIRECT: 0.012,
    PingOutcome.PEER_RELAY: 0.025,
    PingOutcome.DERP: 0.048,
}
"Round-trip time of a ping by path: typical values on the internet."
_TSMP_SENT, _TSMP_RECEIVED = 280, 64
"Bytes that WireGuard counts for a TSMP ping and its pong: measured."


class _Outage(Struct):
    """An outage of servers while it lasts."""

    mode: Mode
    is_noticed: bool = False
    "tailscaled knows of it."


class World:
    """The tailnet at an instant. Time only goes forward.

    `speed` is the number of its seconds per second of the clocks that it shows. A
    client that sees an hour of it in a minute also sees a handshake of an hour ago as
    one of a minute ago.
    """

    def __init__(self, scenario: Scenario, seed: int, *, speed: float = 1.0) -> None:
        self.scenario = scenario
        self._speed = speed
        self.daemon_down_seconds = 0.0  # stopped, or started and not yet `Running`
        self.far_restarts = 0
        self._agenda = Agenda(seed)
        self._harm = Harm()
        self._clock_offset = 0.0
        self._resumes: list[tuple[float, float]] = []
        self._watchdog_at: float | None = None
        self._timestamp = (0, timestamp(0))

        # The node: tailscaled, its surroundings, and the faults.
        self._derp_outages: list[_Outage] = []
        self._control_outages: list[_Outage] = []
        self._deaths = self._failing_restarts = 0
        self._down_since: float | None = None
        self._is_starting = False
        self.tailscaled_start = int(scenario.start)
        self._suspended_at: float | None = None
        self._faults: list[Fault] = []
        self._port = PORT
        self._ports = 0  # number of other ports so far
        self._own_blocks = 0  # events that now block UDP at the node's own router
        self._wan_changes = 0
        self._addresses = self._own_addresses()  # as in the status

        # The peers. A cold peer is one that keepalive does not keep active.
        names = [(peer, name) for peer in scenario.peers for name in peer_names(peer)]
        self._links = {
            name: Link(
                peer,
                name,
                number,
                peer_key(name),
                ip_of(number),
                peer_fields(name, number, ip_of(number), os=peer.os, relay=peer.relay),
            )
            for number, (peer, name) in enumerate(names)
        }
        self._by_ip = {link.ip: link for link in self._links.values()}
        self._cold = dict(self._links)
        self._relay_server = next(
            (link for link in self._links.values() if link.peer.serves_relay), None
        )

        # Keepalive.
        self._keepalive: float = scenario.node.keepalive
        self._is_continuous = 0 < self._keepalive <= ACTIVE_SECONDS
        self._last_round = -NEVER
        self._next_round = (
            self._agenda.draw("keepalive", span_range(0, self._keepalive))
            if self._keepalive
            else NEVER
        )
        if scenario.node.settled and self._is_continuous:
            self._warm_up()

        # Events and habits. Those of the same millisecond run in this order.
        for number, event in enumerate(scenario.events):
            at = self._agenda.draw(f"event {number} begins", event.at.range)
            self._agenda.at(at, partial(self._start_event, event, f"event {number}"))
        for link in self._links.values():
            self._start_habits(link)

    # For the caller

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._agenda.now

    def advance(self, to: float) -> None:
        """Run everything up to and including an instant."""
        while self._next_round <= to:
            self._agenda.advance(self._next_round)
            self._run_keepalive()
        self._agenda.advance(to)

    def next_watchdog_run(self, end: float) -> float | None:
        """Advance to the next run of the watchdog, and return its time.

        If there is none before `end`, advance to `end` and return None. The timer does
        not run while the node sleeps.
        """
        watchdog = self.scenario.watchdog
        at = 0.0
        if self._watchdog_at is not None:
            jitter = self._agenda.draw("watchdog", span_range(0, watchdog.jitter))
            at = self._watchdog_at + watchdog.interval + jitter
        slept = self._slept_seconds()
        self.advance(min(at, end))

        # Postpone the run by each sleep that the node had before it.
        while self._suspended_at is not None or self._slept_seconds() > slept:
            while self._suspended_at is not None and self.now < end:
                self.advance(min(self._agenda.next_at(), end))
            if self.now >= end:
                return None
            slept_now = self._slept_seconds()
            at += slept_now - slept
            slept = slept_now
            self.advance(min(at, end))
        self._watchdog_at = at
        return at if at < end else None

    def instant(self) -> Instant:
        """Return the time on the node's clocks."""
        return Instant(
            max(0, int(self._wall(self.now))),
            Boot(
                "00000000-0000-4000-8000-000000000000",
                int(self.now) + _UPTIME_SECONDS,
                int(self.now - self._slept_seconds()) + _UPTIME_SECONDS,
            ),
        )

    def observe(self) -> bytes | str:
        """Return the status, or a fault if tailscaled is down."""
        if self._is_down():
            return DOWN
        # A tailscaled that is starting has no peers yet, and counts no traffic.
        node = self._node()
        links = self._links.values() if node.is_running else ()
        return status_document(node, [(link.key, self._peer_fields(link)) for link in links])

    def status(self) -> Status | str:
        """Return the status that `observe` has as JSON, or the fault.

        A peer is the same object as in the last one while nothing of it changes.
        """
        if self._is_down():
            return DOWN
        node = self._node()
        if not node.is_running:
            return node_status(node)
        peers = {link.key: self._peer_status(link) for link in self._links.values()}
        return replace(node_status(node), peer=peers)

    def ping(self, ip: str, kind: PingKind = PingKind.DISCO) -> PingResult:
        """Send one ping, with its effect on the path and on the traffic.

        Unlike tailscaled, also tell the path of a TSMP pong.
        """
        link = self._by_ip.get(ip)
        if link is None or not self._can_send():
            return ERROR
        self._send(link)
        path = self._path_of_ping(link)
        if kind is PingKind.TSMP:
            link.tx += _TSMP_SENT
            if path is None or link.dead_data:
                return NO_REPLY
            link.rx += _TSMP_RECEIVED
        return NO_REPLY if path is None else PingResult(path, LATENCY_SECONDS[path])

    def can_restart(self) -> bool:
        """Whether the command of a remedy would succeed now."""
        return not self._failing_restarts

    def restart(self, remedy: Remedy = Remedy.RESTART) -> bool:
        """Apply a remedy. Return whether that cured a fault.

        A plain restart returns to the configured port.
        """
        has_cured = self._cure(remedy)
        self._change_port(remedy)
        direct = [
            (link, self._idle_from(link)) for link in self._links.values() if self._is_direct(link)
        ]
        self._forget_all()
        for link, idle_from in direct:
            self._harm.begin(link, self.now, idle_from)
        if not self._deaths:
            self._stop()
            self._agenda.after(self.scenario.node.start, self._start)
        return has_cured

    def cure(self) -> None:
        """Cure what a remedy can cure, without its harm."""
        if self._cure(Remedy.OTHER_PORT):
            self._update_paths(self._links.values())
            self._netcheck()

    def harm_seconds(self) -> float:
        """Return the peer-seconds of direct path that the restarts cost until now."""
        self._end_harm()
        return self._harm.seconds

    def remedy_for(self, name: str) -> Remedy | None:
        """Return the remedy that would make this peer direct now.

        None if it is direct, or kept on relay by anything that no remedy cures.
        """
        link = self._links.get(name)
        if (
            link is None
            or not link.is_online
            or link.obstacles
            or hole_punch_seconds(self.scenario.node.nat, link.peer.nat) is None
            or self._is_direct(link)
        ):
            return None
        return remedy_for(link.faults)

    # Time

    def _wall(self, at: float) -> float:
        return self.scenario.start + self._clock_offset + at / self._speed

    def _slept_seconds(self) -> float:
        return sum(end - begin for begin, end in self._resumes)

    def _time(self, at: float) -> str:
        """Format an instant. The last one is cached: most peers share it."""
        if at == -NEVER:
            return ZERO_TIME
        wall = int(self._wall(at))
        if self._timestamp[0] != wall:
            self._timestamp = (wall, timestamp(wall))
        return self._timestamp[1]

    # Paths

    def _last_sent(self, link: Link) -> float:
        """Return the time of the last packet to a peer, including keepalive."""
        if link.busy_since is not None and self._can_send():
            return self._agenda.now
        return max(link.last_sent, self._last_round) if link.is_warm else link.last_sent

    def _is_active(self, link: Link) -> bool:
        return is_active(self._last_sent(link), self._agenda.now)

    def _is_direct(self, link: Link) -> bool:
        return is_direct(link, self._last_sent(link), self._agenda.now)

    def _shows_direct(self, link: Link) -> bool:
        """Whether the status shows a direct path."""
        return self._is_direct(link) and not self._is_dropped(link)

    def _is_dropped(self, link: Link) -> bool:
        """Whether tailscaled has dropped the path for a moment.

        While relays are silent, it rebinds its sockets every few seconds, and drops all
        paths each time.
        """
        is_rebinding = any(
            outage.is_noticed and outage.mode == "silent" for outage in self._derp_outages
        )
        return is_rebinding and self._agenda.coin(f"flap {link.name}", FLAP_SECONDS)

    def _knows_of_control_outage(self) -> bool:
        """Whether tailscaled knows that the control server is unreachable.

        It learns that late, unless it has just been started.
        """
        is_new = self._is_starting and bool(self._control_outages)
        return is_new or any(outage.is_noticed for outage in self._control_outages)

    def _idle_from(self, link: Link) -> float:
        """Return when a direct peer loses its address if no more traffic begins."""
        if link.is_warm or link.busy_since is not None:
            return NEVER
        return link.last_sent + ACTIVE_SECONDS + link.linger

    def _can_be_direct(self, link: Link) -> bool:
        return can_be_direct(link, self.scenario.node.nat)

    def _peer_relay(self, link: Link) -> str:
        """Return the address of the path through the peer relay, if any."""
        server = self._relay_server
        if (
            server is None
            or server is link
            or not server.is_online
            or Nat.NOUDP in {self.scenario.node.nat, link.peer.nat}
            or not self._is_active(link)
        ):
            return ""
        return f"{endpoint(server)}:vni:{link.number + 1}"

    def _path_of_ping(self, link: Link) -> PingOutcome | None:
        """Return the path of a ping and its pong; None if one of them is lost."""
        if not link.is_online:
            return None
        if self._shows_direct(link):
            return PingOutcome.DIRECT
        if self._peer_relay(link):
            return PingOutcome.PEER_RELAY
        return None if self._derp_outages else PingOutcome.DERP

    def _send(self, link: Link) -> None:
        """Send a packet. Without a path, the search for one starts."""
        if not self._is_active(link) and not self._is_direct(link):
            self._search_path(link)
        link.last_sent = self.now

    def _search_path(self, link: Link) -> None:
        self._harm.settle(link, self.now)
        forget_path(link)
        link.linger = self._agenda.draw(f"linger {link.name}", LINGER_SECONDS)
        seconds = hole_punch_seconds(self.scenario.node.nat, link.peer.nat)
        if seconds is None or not self._can_be_direct(link):
            return
        if self.now < link.mapping_until:
            seconds = KNOWN_SECONDS
        # Hole punching needs a relay to tell the other side to open its NAT.
        if seconds == KNOWN_SECONDS or not self._derp_outages:
            link.direct_from = self.now + seconds

    def _update_path(self, link: Link) -> None:
        """Find or lose a path after a change of what it depends on."""
        is_valid = is_path_valid(link, self.now)
        is_searching = self.now < link.direct_from < NEVER
        can_be_direct = self._can_be_direct(link)
        self._harm.settle(link, self.now, is_over=not can_be_direct)
        if not can_be_direct:
            if is_valid:
                lost_at = self.now + self._agenda.draw(f"lost {link.name}", LOST_SECONDS)
                link.direct_until = min(link.direct_until, lost_at)
            else:
                forget_path(link)
        elif is_valid:
            link.direct_until = NEVER
        elif not is_searching and not self._derp_outages and self._is_active(link):
            link.direct_from = self.now + self._agenda.draw(f"found {link.name}", FOUND_SECONDS)
            link.direct_until = NEVER

    def _update_paths(self, links: Iterable[Link]) -> None:
        for link in links:
            self._update_path(link)

    def _cool(self, link: Link) -> None:
        """Record that keepalive no longer reaches a peer. Its last packet stays."""
        link.last_sent = self._last_sent(link)
        if self._is_direct(link):
            link.mapping_until = link.last_sent + ACTIVE_SECONDS + link.peer.mapping
        link.is_warm = False

    def _forget_all(self) -> None:
        """Forget what a tailscaled that ended knew. The NATs keep their mappings."""
        for link in self._links.values():
            if self._is_direct(link):
                link.mapping_until = self.now + link.peer.mapping
            count_traffic(link, self.now)
            self._harm.settle(link, self.now)
            link.last_sent = link.last_handshake = -NEVER
            link.rx = link.tx = 0
            link.is_warm = False
            forget_path(link)
        self._cold = dict(self._links)
        self._last_round = -NEVER

    def _end_harm(self) -> None:
        """Count the harm until now, where no path would be direct from now on."""
        for link in self._links.values():
            self._harm.settle(link, self.now, is_over=True)

    # Keepalive

    def _warm_up(self) -> None:
        """Begin just after a round of keepalive, with all paths found long ago."""
        self._last_round = 0.0
        self._cold = {}
        for link in self._links.values():
            link.is_warm = True
            link.direct_from = 0.0 if self._can_be_direct(link) else NEVER

    def _run_keepalive(self) -> None:
        jitter = self._agenda.draw("keepalive jitter", _KEEPALIVE_JITTER)
        self._next_round = round(self.now + self._keepalive + jitter, 3)
        if not self._can_send():
            return

        # Rounds that are far apart let peers become idle in between: ping each of them.
        if not self._is_continuous:
            for link in self._links.values():
                if link.is_online_in_map:
                    self._send(link)
                    if self._is_direct(link) or link.direct_from < NEVER:
                        link.mapping_until = self.now + ACTIVE_SECONDS + link.peer.mapping
            return

        # One ping makes a peer warm. From then on `_last_round` is its last packet.
        for link in [link for link in self._cold.values() if link.is_online_in_map]:
            self._send(link)
            link.is_warm = True
            del self._cold[link.name]
        self._last_round = self.now

    # Remedies

    def _cure(self, remedy: Remedy) -> bool:
        """Cure the faults that a remedy cures. Return whether there were any."""
        cured = [fault for fault in self._faults if cures(remedy, fault)]
        for fault in cured:
            fault.is_cured = True
            if isinstance(fault, StuckFault) and fault.event.restart == "cures-for":
                seconds = self._agenda.draw("cured", fault.event.cured)
                self._agenda.after(seconds, partial(self._relapse, fault))
        return bool(cured)

    def _change_port(self, remedy: Remedy) -> None:
        """Use the port that a remedy chooses. Faults of other ports have no effect."""
        if remedy is Remedy.OTHER_PORT:
            self._ports += 1
        self._port = PORT + self._ports if remedy is Remedy.OTHER_PORT else PORT
        for fault in self._faults:
            if isinstance(fault, PortFault):
                fault.is_cured = fault.port != self._port

    # tailscaled

    def _can_send(self) -> bool:
        """Whether the node is awake and tailscaled is up."""
        return not self._deaths and self._down_since is None and self._suspended_at is None

    def _stop(self) -> None:
        if self._down_since is None:
            self._down_since = self.now
        self._is_starting = False

    def _start(self) -> None:
        """Start tailscaled. It is `Running` when the control server sends the peers."""
        if self._deaths or self._down_since is None:
            return
        if not self._is_starting:
            self.tailscaled_start = int(self._wall(self.now))
            self._netcheck()
        self._is_starting = True
        if not self._control_outages:
            self.daemon_down_seconds += self.now - self._down_since
            self._down_since = None
            self._is_starting = False
            # The next packet of traffic that goes on searches a path.
            for link in self._links.values():
                if link.busy_since is not None:
                    self._search_path(link)

    # Habits of a peer

    def _start_habits(self, link: Link) -> None:
        peer, start = link.peer, self._agenda.start
        if peer.phone is not None:
            start(self._phone(link, peer.phone))
        if peer.sleep is not None:
            start(self._sleep(link, peer.sleep))
        if peer.traffic is not None:
            start(self._traffic(link, peer.traffic))
        if peer.nat is Nat.CGNAT:
            start(self._address_changes(link))
        if peer.watchdog:
            start(self._far_watchdog(link))

    def _phone(self, link: Link, phone: Phone) -> Iterator[float]:
        subject = f"phone {link.name}"
        while True:
            yield self._agenda.draw(subject, phone.online)
            self._set_online(link, is_online=False)
            yield self._agenda.draw(subject, phone.offline)
            self._set_online(link, is_online=True)

    def _sleep(self, link: Link, sleep: Sleep) -> Iterator[float]:
        subject = f"sleep {link.name}"
        while True:
            yield self._agenda.draw(subject, sleep.awake)
            link.obstacles += 1
            self._update_path(link)
            yield self._agenda.draw(subject, sleep.asleep)
            link.obstacles -= 1
            self._update_path(link)

    def _traffic(self, link: Link, traffic: Traffic) -> Iterator[float]:
        subject = f"traffic {link.name}"
        while True:
            yield self._agenda.draw(subject, traffic.every)
            self._send(link)
            link.busy_since = self.now
            if is_answering(link):
                link.last_handshake = self.now
            yield self._agenda.draw(subject, traffic.lasts)
            link.last_sent = self._last_sent(link)
            count_traffic(link, self.now)
            link.busy_since = None
            if self._is_direct(link):
                link.mapping_until = link.last_sent + ACTIVE_SECONDS + link.peer.mapping

    def _address_changes(self, link: Link) -> Iterator[float]:
        while True:
            yield self._agenda.draw(f"readdress {link.name}", link.peer.readdress)
            self._change_address(link)

    def _far_watchdog(self, link: Link) -> Iterator[float]:
        """Run the watchdog at the other end: this node is its only peer."""
        interval = _FAR_INTERVAL_SECONDS
        yield self._agenda.draw(f"far watchdog {link.name}", span_range(0, interval))
        while True:
            if link.is_online and self._suspended_at is None:
                self._run_far_watchdog(link)
            yield interval

    def _run_far_watchdog(self, link: Link) -> None:
        us = PeerStatus(
            dns_name="self.tail1.ts.net.",
            online=self._down_since is None,
            cur_addr="192.0.2.1:41641" if self._shows_direct(link) else "",
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
            cure_far_faults(link)
            self._change_address(link)

    def _set_online(self, link: Link, *, is_online: bool) -> None:
        if link.is_online == is_online:
            return
        count_traffic(link, self.now)
        if not is_online:
            self._cool(link)
            link.mapping_until = -NEVER
            link.last_seen = self.now
            cure_far_faults(link)
        link.is_online = is_online
        if not self._control_outages:
            link.is_online_in_map = is_online
        if is_online:
            forget_path(link)
            link.last_sent = -NEVER
            self._cold[link.name] = link
        self._update_path(link)

    def _change_address(self, link: Link) -> None:
        link.address_number = (link.address_number + 1) % 1000
        self._change_flow(link)

    def _change_flow(self, link: Link) -> None:
        """Lose the path between the old addresses, and find one between the new."""
        link.mapping_until = -NEVER
        if is_path_valid(link, self.now):
            link.direct_until = self.now + self._agenda.draw(f"lost {link.name}", LOST_SECONDS)
            self._agenda.at(link.direct_until, partial(self._update_path, link))
        else:
            self._update_path(link)

    # Events

    def _start_event(self, event: Event, subject: str) -> None:
        self._agenda.start(self._event(event, subject))

    def _event(self, event: Event, subject: str) -> Iterator[float]:
        while True:
            effect = self._effect(event)
            next(effect)
            if event.lasts is None:
                return
            yield self._agenda.draw(f"{subject} lasts", event.lasts.range)
            next(effect, None)
            if event.repeat is None:
                return
            yield self._agenda.draw(f"{subject} repeats", event.repeat)

    def _effect(self, event: Event) -> Iterator[None]:
        """Return a generator that begins an event, and then ends it."""
        return (
            self._path_effect(event) if isinstance(event, PathEvent) else self._node_effect(event)
        )

    def _path_effect(self, event: PathEvent) -> Iterator[None]:
        match event:
            case Stuck():
                return self._stuck(event)
            case UdpBlocked():
                return self._udp_blocked(event.peers)
            case BlockedPort():
                return self._blocked_port()
            case StuckNat():
                return self._stuck_nat(self._named(event.peers))
            case WanChange():
                return self._wan_change()
            case DeadData():
                return self._dead_data(self._named(event.peers))
            case Readdress():
                return self._readdress(self._named(event.peers))
            case Offline():
                return self._offline(self._named(event.peers))

    def _node_effect(self, event: NodeEvent) -> Iterator[None]:
        match event:
            case DerpOutage():
                return self._derp_outage(_Outage(event.mode))
            case ControlOutage():
                return self._control_outage(_Outage(event.mode))
            case DaemonDead():
                return self._daemon_dead()
            case RestartFails():
                return self._restart_fails()
            case Suspend():
                return self._suspend()
            case ClockStep():
                return self._clock_step(event.by)

    def _named(self, names: Iterable[str] | None) -> list[Link]:
        """Return the links to these peers or groups of peers; None: all."""
        links = self._links.values()
        if names is None:
            return list(links)
        chosen = set(names)
        return [link for link in links if link.name in chosen or link.peer.name in chosen]

    def _stuck(self, event: Stuck) -> Iterator[None]:
        fault = StuckFault(event)
        yield from self._fault(fault, self._named(event.peers))
        fault.has_ended = True

    def _relapse(self, fault: StuckFault) -> None:
        if not fault.has_ended:
            fault.is_cured = False
            self._update_paths(self._named(fault.event.peers))

    def _fault(self, fault: StuckFault | PortFault, links: Iterable[Link]) -> Iterator[None]:
        """Keep the links from being direct, until the fault ends or is cured."""
        self._faults.append(fault)
        for link in links:
            link.faults.append(fault)
            self._update_path(link)
        yield
        self._faults = [other for other in self._faults if other is not fault]
        for link in links:
            link.faults = [other for other in link.faults if other is not fault]
            self._update_path(link)

    def _blocked_port(self) -> Iterator[None]:
        self._netcheck_after(NETCHECK_LAG)
        fault = PortFault(self._port, blocks_stun=True)
        yield from self._fault(fault, self._links.values())
        self._netcheck_after(NETCHECK_LAG)

    def _stuck_nat(self, links: list[Link]) -> Iterator[None]:
        self._change_own_address()
        yield from self._fault(PortFault(self._port), links)

    def _wan_change(self) -> Iterator[None]:
        self._change_own_address()
        for link in self._links.values():
            self._change_flow(link)
        yield

    def _udp_blocked(self, names: Iterable[str] | None) -> Iterator[None]:
        links = self._named(names)
        is_own = names is None
        self._block_udp(links, is_own=is_own, change=1)
        yield
        self._block_udp(links, is_own=is_own, change=-1)

    def _block_udp(self, links: list[Link], *, is_own: bool, change: int) -> None:
        """Add an obstacle to the links, or remove it (`change` 1 or -1)."""
        if is_own:
            self._own_blocks += change
            self._netcheck_after(NETCHECK_LAG)
        for link in links:
            link.obstacles += change
            self._update_path(link)

    def _dead_data(self, links: list[Link]) -> Iterator[None]:
        for link in links:
            count_traffic(link, self.now)
            link.dead_data += 1
        yield
        for link in links:
            count_traffic(link, self.now)
            link.dead_data -= 1

    def _notice(self, outage: _Outage) -> None:
        outage.is_noticed = True

    def _derp_outage(self, outage: _Outage) -> Iterator[None]:
        self._derp_outages.append(outage)
        lag = self._agenda.draw("derp lag", DERP_LAG[outage.mode])
        self._agenda.after(lag, partial(self._notice, outage))
        yield
        self._derp_outages = [other for other in self._derp_outages if other is not outage]
        self._update_paths(self._links.values())

    def _control_outage(self, outage: _Outage) -> Iterator[None]:
        self._control_outages.append(outage)
        lag = self._agenda.draw("control lag", CONTROL_LAG[outage.mode])
        self._agenda.after(lag, partial(self._notice, outage))
        yield
        self._control_outages = [other for other in self._control_outages if other is not outage]
        if not self._control_outages:
            for link in self._links.values():
                link.is_online_in_map = link.is_online
            if self._is_starting:
                self._start()

    def _daemon_dead(self) -> Iterator[None]:
        self._deaths += 1
        self._end_harm()
        self._stop()
        self._forget_all()
        yield
        self._deaths -= 1
        self._start()

    def _restart_fails(self) -> Iterator[None]:
        self._failing_restarts += 1
        yield
        self._failing_restarts -= 1

    def _offline(self, links: list[Link]) -> Iterator[None]:
        for link in links:
            self._set_online(link, is_online=False)
        yield
        for link in links:
            self._set_online(link, is_online=True)

    def _suspend(self) -> Iterator[None]:
        self._end_harm()
        self._suspended_at = self.now
        yield
        self._resume()

    def _resume(self) -> None:
        begin = self.now if self._suspended_at is None else self._suspended_at
        self._resumes.append((begin, self.now))
        self._suspended_at = None
        # No packet was sent during the sleep: active peers are idle after it.
        for link in self._links.values():
            self._cool(link)
            if self.now - link.last_sent > ACTIVE_SECONDS:
                forget_path(link)
                self._cold[link.name] = link
            else:
                link.is_warm = True

    def _clock_step(self, seconds: float) -> Iterator[None]:
        self._clock_offset += seconds
        yield

    def _readdress(self, links: list[Link]) -> Iterator[None]:
        for link in links:
            self._change_address(link)
        yield

    # The addresses of the node

    def _change_own_address(self) -> None:
        self._wan_changes += 1
        self._netcheck_after(ADDRESS_LAG)

    def _netcheck_after(self, lag: Range) -> None:
        self._agenda.after(self._agenda.draw("netcheck", lag), self._netcheck)

    def _netcheck(self) -> None:
        """Find the addresses of the node. tailscaled does so at its start, too."""
        self._addresses = self._own_addresses()

    def _own_addresses(self) -> tuple[str, ...]:
        """The node's addresses as STUN sees them, and its local one.

        Without STUN there is no public one; a hard NAT has a port per destination.
        """
        nat, port = self.scenario.node.nat, self._port
        public, local = f"192.0.2.{self._wan_changes % 250 + 1}", f"10.0.0.2:{port}"
        is_blocked = any(
            isinstance(fault, PortFault) and fault.blocks_stun and not fault.is_cured
            for fault in self._faults
        )
        if nat is Nat.NOUDP or self._own_blocks or is_blocked:
            return (local,)
        if nat is Nat.HARD:
            return (f"{public}:{port + 2000}", f"{public}:{port + 3000}", local)
        return (f"{public}:{port}", local)

    # Status

    def _is_down(self) -> bool:
        """Whether tailscaled does not respond."""
        return bool(self._deaths) or (self._down_since is not None and not self._is_starting)

    def _node(self) -> NodeView:
        return NodeView(
            is_running=self._down_since is None,
            has_relay=not any(outage.is_noticed for outage in self._derp_outages),
            has_control=not self._knows_of_control_outage(),
            addresses=self._addresses,
        )

    def _peer_status(self, link: Link) -> PeerStatus:
        """Return a peer of the status; the same object while nothing of it changes."""
        count_traffic(link, self._agenda.now)
        seen = (
            *self._path_fields(link),
            *(link.rx, link.tx, link.is_online_in_map),
            *(link.last_seen, link.last_handshake, self._clock_offset),
        )
        if link.seen != seen:
            link.seen, link.status = seen, peer_status(self._peer_fields(link))
        return link.status

    def _path_fields(self, link: Link) -> tuple[str, str, bool]:
        """Return `CurAddr`, `PeerRelay` and `Active` of a peer."""
        now, sent = self._agenda.now, self._last_sent(link)
        is_direct_now = is_direct(link, sent, now)
        if self._derp_outages and self._is_dropped(link):
            is_direct_now = False
        return (
            endpoint(link) if is_direct_now else "",
            "" if is_direct_now else self._peer_relay(link),
            is_active(sent, now),
        )

    def _peer_fields(self, link: Link) -> dict[str, Any]:
        """Return all fields of a peer. What can change in them is in `link.seen`."""
        count_traffic(link, self._agenda.now)
        fields = link.fields
        fields["CurAddr"], fields["PeerRelay"], fields["Active"] = self._path_fields(link)
        fields["RxBytes"], fields["TxBytes"] = link.rx, link.tx
        fields["LastWrite"] = self._time(self._last_sent(link))
        fields["LastSeen"] = ZERO_TIME if link.is_online_in_map else self._time(link.last_seen)
        fields["LastHandshake"] = self._time(link.last_handshake)
        fields["Online"] = link.is_online_in_map
        fields["InEngine"] = link.last_handshake > -NEVER
        return fields
