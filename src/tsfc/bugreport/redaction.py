"""Redaction of texts around a status: lines of the journal, metrics, unit files.

In a status, the field of a text says what the text is. These texts have no fields, so a
word stays only if it is a short number, a time, a version, or in a list of harmless
words. Every other word is replaced with the pseudonym that it has in the redacted
status. In a place where tsfc always writes a name, such as `peer="…"`, the word is
always replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.tailscale import naming
from tsfc.core.tailscale.peers import named, own_name
from tsfc.core.tailscale.status import BACKEND_STATES, Status
from tsfc.core.text import one_line
from tsfc.core.watchdog.memory import Memory
from tsfc.core.watchdog.policy import GuardedPolicy, Policy
from tsfc.core.watchdog.remedy import Attempt
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.offline.capture.redact import (
    DERP_REGIONS,
    OPERATING_SYSTEMS,
    ORDINARY,
    by_form,
    redacted_boot,
    version,
)

LINE_LIMIT = 2000
"Characters of a line; the rest is cut off."

_WORDS = ORDINARY | frozenset(
    """
    about absent accepted activating active again agent ago all allow allowed already an another
    answered any are arguments as at auto back bad because been before begins belongs blocked
    budget byte bytes call cannot capture cause caused causes change changed cli clock comes command
    configured confirming control cooldown core-dump count counted counting cpu damaged data
    days dead debug decided derp detected did differ different differs direct direct_peers dirty
    disco documented does down dropped dry-run each effect else enabled ended ends environment
    errors estimated every exceeded excluded excluding exists exit-code exited expired exporter
    failed fewer field first float forbidden found free from funnel generated given guarded had
    hand has have held helped helps holds hours if inactive indirect info ingress into issues
    itself job jobs json judged keepalive keeping knew known last late latency left less likely
    line lines list listening loaded local localapi lock longer longest loop lost masked maximum
    may memory mends metrics minutes missing more moved mullvad names native-metrics needs
    network never never-direct new newer next none nothing notice now number observed offline
    old one oneshot online only oom-kill options other other-port others outcome own packets
    parts passed path patient paused peer peers ping pinged pinging pings policy pong pongs port
    possible printed printing process processes purpose rapid reached read reader reads reason
    received recovered region regular relay remaining remedies remedy removed replaced reply
    request restart restarted restarts result results retry round runs same sample sandbox sec
    seconds seen self sent shared short shows since skipped slow so something specify standard
    starts state static stays still stopped success suspended systemd tailscaled.service taken
    text them then this threshold time timeout timer times tools transitioned tsfc tsmp turned
    udp unavailable unchanged unconfirmed unit units unknown unless until up used utc utf-8
    verdict via waiting warning watchdog watched were whether which while why will wireguard
    worse worth would writable write writes writing yes yet
    """.split()  # noqa: SIM905 - more readable than a list of strings
)
"Words of the messages of tsfc and systemd, in lower case."
_PATH_PARTS = frozenset(
    """
    .venv alloy bin boot cache control dev etc group home lib lib64 local nix node_exporter
    notify.sock opt pause port.env proc prometheus python python3 restart.sock root run sbin service
    share sock state.json store sys system systemd tailscale tailscale-capture tailscale-watchdog
    tailscale-watchdog-restart tailscaled.sock textfile textfile_collector tmp tsfc user usr var
    venv
    """.split()  # noqa: SIM905 - more readable than a list of strings
)
"Parts of usual paths; in other places they may be names."
_RELEASE_PARTS = frozenset(
    """
    aarch64 alma almalinux alpine amd64 amzn arch archarm arm64 armbian armhf armv6l armv7
    armv7l aws azure bpo centos cloud coreos cpython deb debian devuan dietpi el fc fedora gcp
    generic gentoo guix hardened i686 kali l leap linux linuxmint lowlatency lts manjaro microos
    microsoft nixos opensuse opensuse-leap openwrt pop postmarketos ppc64le proxmox pve raspbian
    raspi rc rhel riscv64 rocky rpi rt s390x slackware sles standard suse tumbleweed ubuntu
    unraid v6 v7 v8 void wsl wsl2 x86_64 zen
    """.split()  # noqa: SIM905 - more readable than a list of strings
)
"Distributions (`ID` of os-release), machines, and parts of the releases of kernels."
_LABEL_VALUES = (
    frozenset(
        """
        +Inf acl capture confirming control_outage cooldown derp detected direct direct_ipv4
        direct_ipv6 error excluded exporter far_side fragment funnel hard_nat held helped idle
        keepalive link_local_unicast mullvad multicast native-metrics never_direct no_effect
        no_reply none offline other-port patient peer_relay peer_relay_ipv4 peer_relay_ipv6
        recovered relay_outage restart restored sharee too_short udp_blocked unconfirmed unknown
        unknown_protocol waiting warning watchdog worse
        """.split()  # noqa: SIM905 - more readable than a list of strings
    )
    | frozenset(BACKEND_STATES)
    | OPERATING_SYSTEMS
    | DERP_REGIONS
)
"Values of the labels of tsfc and tailscaled that are no names."

_JOBS = (
    "exporter|native-metrics|keepalive|watchdog-restart|watchdog-notify|watchdog|capture|agent|peers"
    "|native"
)
_FILE = re.compile(
    rf"(tailscale-(?:{_JOBS})(?:-(?!(?:restart|notify)\b)|@)?)([^.]*?)"
    r"(@?(?:\.(?:service|timer|socket|prom|json|d|conf))*)"
)
"A unit, its instance if it has one, and suffixes; a metrics file of a job."
_MEASURE = re.compile(
    r"""
    [0-9]{1,3}(?:\.[0-9]{1,6})?                                # a count, an exit status
    | [0-9]{1,9}(?:\.[0-9]{1,6})?(?:ns|us|ms|s|m|min|h|d|w|kB|MB|B|K|M|G|%)
    | [0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z
    """,
    re.VERBOSE,
)
_IN_CONTEXT = re.compile(r"[0-9]{1,12}(?= (?:s|bytes|MiB)\b)|(?:(?<=control )|(?<=relay ))server\b")
"A number before its unit; a server that is no machine of the user."
_OPTION = re.compile(r"--[a-z][a-z-]*")
_ATOM = re.compile(r"[^\s\"'`()\[\]{}<>,;=|/\\]+")
"What is between spaces, quotes, brackets and the separators of paths and options."
_PUNCTUATION = ".:?!…"
"What may stand around an atom."
_WITH_COLONS = re.compile(
    r"(?:nodekey|tag|svc):.+|[0-9.]+:[0-9]+|[0-9a-fA-F.]*:[0-9a-fA-F.]*:[0-9a-fA-F.:]*"
)
"A key, a tag, a service, an endpoint or an IPv6 address."
_PLACES = re.compile(
    r"""
    ^[A-Z-]{4,20}:[ ](?P<peer>.+?)(?=[ ](?:
        transitioned[ ]to[ ]relay|on[ ]relay[ ]for|exceeded[ ]threshold|back[ ]to[ ]direct
        |direct,[ ]but|direct[ ][0-9]+s[ ]after|still[ ]on[ ]relay|not[ ]observed))
    | exclude-peers?(?:"?[ ]"?|=)(?P<excluded>[^"\s:]+)
    """,
    re.VERBOSE,
)
"Where tsfc writes the name of a peer."
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_SAMPLE = re.compile(r"(tailscaled?_\w+)(?:\{(.*)\})?( [-+.0-9eEINFNa]+)")
_CLOSED_LABELS = frozenset(
    {"cause", "command", "kind", "le", "os", "outcome", "path"}
    | {"reason", "relay", "remedy", "result", "state", "type"}
)
"Labels whose values are no names, if they are those of tsfc or Tailscale."
_VERSION_LABELS = frozenset({"version", "short_version"})
_NAME_LABELS = frozenset({"peer", "id", "hostname", "dns_name", "user", "tags", "ip"})
"Labels of tsfc whose values are names."
_UNIT_LINE = re.compile(
    r"# (?:/|Options)|\[|$|(?:Exec\w+|On\w+Sec|OnCalendar|Environment\w*|User|DynamicUser"
    r"|SyslogIdentifier|Listen\w+|StateDirectory|MemoryMax|LimitNOFILE)="
)


class Names(Struct, frozen=True):
    """The pseudonyms of one report."""

    key: bytes
    known: Mapping[str, str] = {}
    "Pseudonyms of the names in the status; the same as in the redacted one."
    phrases: tuple[str, ...] = ()
    "Known names that are more than one word, longest first."


def names_of(status: Status, redacted: Status, key: bytes) -> Names:
    """Return the pseudonyms of a status and the same status after `redacted`.

    A peer's unique name gets the name that it has in the redacted status.
    """
    unique, renamed = _unique_names(status), _unique_names(redacted)
    peers, others = status.peer or {}, redacted.peer or {}
    known: dict[str, str] = {}
    for node_key, peer_name in unique.items():
        known[peer_name] = renamed.get(by_form(node_key, key), by_form(peer_name, key))
    known.setdefault(own_name(status), own_name(redacted))
    nodes = [(peer, others.get(by_form(node_key, key))) for node_key, peer in peers.items()]
    for node, other in ((status.self_, redacted.self_), *nodes):
        if other is not None:
            known.setdefault(node.id, other.id)
            known.setdefault(node.dns_name.removesuffix("."), other.dns_name.removesuffix("."))
            known.setdefault(node.host_name, other.host_name)
    known.pop("", None)
    phrases = (text for text in known if not _ATOM.fullmatch(text) or ":" in text)
    return Names(key, known, tuple(sorted(phrases, key=len, reverse=True)))


def name(text: str, names: Names) -> str:
    """Return the pseudonym of a text that is a name."""
    known = names.known.get(text)
    return by_form(text, names.key) if known is None else known


def line(text: str, names: Names) -> str:
    """Return a line with pseudonyms for all words that may be names."""
    text = one_line(text, LINE_LIMIT)
    pieces: list[str] = []
    at = 0
    for found in _PLACES.finditer(text):
        start, end = found.span(found.lastgroup or 0)
        pieces += [_phrases(text[at:start], names), name(text[start:end], names)]
        at = end
    return "".join((*pieces, _phrases(text[at:], names)))


def metric(text: str, names: Names) -> str | None:
    """Return a line of a metrics file with pseudonyms; None if it has no sample."""
    found = _SAMPLE.fullmatch(text)
    if found is None:
        return None
    labels = ",".join(
        f'{_label_name(label, names)}="{_label_value(label, value, names)}"'
        for label, value in _LABEL.findall(found[2] or "")
    )
    return f"{found[1]}{f'{{{labels}}}' if labels else ''}{found[3]}"


def unit(text: str, names: Names) -> str | None:
    """Return a line of a unit file with pseudonyms; None if it tells nothing."""
    if not _UNIT_LINE.match(text):
        return None
    directive, equals, value = text.partition("=")
    if equals and directive.isalpha():
        return f"{directive}={line(value, names)}"
    section = re.fullmatch(r"\[[A-Z][a-z]+\]", text)
    return text if section else line(text, names)


def release(text: str, names: Names) -> str:
    """Return a release of a kernel or a distribution: its number and known words."""
    found = re.match(r"[0-9]{1,5}(?:\.[0-9]{1,5}){0,2}(?![.0-9])", text)
    rest = text[found.end() :] if found else text
    start = found[0] if found else ""
    return start + re.sub(r"[^-+.~\s]+", lambda part: _part(part[0], names), rest)


def _part(part: str, names: Names) -> str:
    is_known = part.lower() in _RELEASE_PARTS or _MEASURE.fullmatch(part) is not None
    return part if is_known else by_form(part, names.key)


def instant(at: Instant, names: Names) -> Instant:
    """Return a time with the pseudonym that the boot's ID has in the status."""
    return replace(at, boot=redacted_boot(at.boot, names.key))


def snapshot(original: Snapshot, status: Status | None, names: Names) -> Snapshot:
    """Return the watchdog's snapshot with the pseudonyms of the status.

    An excluded peer that the status knows becomes its unique name.
    """
    state, memory = original.state, original.state.memory
    return Snapshot(
        instant(original.at, names),
        _policy(original.policy, status, names),
        replace(
            state,
            relays={
                name(peer, names): replace(relay, id=_id(relay.id, names))
                for peer, relay in state.relays.items()
            },
            attempts=tuple(_attempt(attempt, names) for attempt in state.attempts),
            last_success=state.last_success and instant(state.last_success, names),
            last_run=state.last_run and instant(state.last_run, names),
            memory=_memory(memory, names),
        ),
    )


def _policy(policy: Policy, status: Status | None, names: Names) -> Policy:
    peers = () if status is None else named(status)
    excluded = frozenset(
        pseudonym
        for text in policy.excluded
        for pseudonym in (
            [name(peer.name, names) for peer in naming.find(peers, text)] or [name(text, names)]
        )
    )
    if isinstance(policy, GuardedPolicy):
        return replace(policy, excluded=excluded, pause_file=line(policy.pause_file, names))
    return replace(policy, excluded=excluded)


def _attempt(attempt: Attempt, names: Names) -> Attempt:
    return replace(
        attempt,
        peer=attempt.peer and name(attempt.peer, names),
        peer_id=_id(attempt.peer_id, names),
        subjects=tuple(_id(subject, names) for subject in attempt.subjects),
    )


def _memory(memory: Memory, names: Names) -> Memory:
    return replace(
        memory,
        peers={_id(key, names): peer for key, peer in memory.peers.items()},
        traffic={_id(key, names): traffic for key, traffic in memory.traffic.items()},
    )


def _id(text: str, names: Names) -> str:
    return text and name(text, names)


def _unique_names(status: Status) -> dict[str, str]:
    """Return the unique names of the peers by their node keys."""
    keys = {id(peer): key for key, peer in (status.peer or {}).items()}
    return {keys[id(peer.status)]: peer.name for peer in named(status)}


def _label_name(label: str, names: Names) -> str:
    is_known = label in _CLOSED_LABELS or label in _NAME_LABELS or label in _VERSION_LABELS
    return label if is_known else by_form(label, names.key)


def _label_value(label: str, value: str, names: Names) -> str:
    text = re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), value)
    if label in _VERSION_LABELS:
        return version(text, names.key)
    if label in _CLOSED_LABELS and (text in _LABEL_VALUES or _MEASURE.fullmatch(text)):
        return text
    if label == "tags":
        return ",".join(by_form(tag, names.key) for tag in text.split(",") if tag)
    return text and name(text, names)


def _phrases(text: str, names: Names) -> str:
    """Redact a text: the names of several words, and what is between them by word."""
    present = [
        phrase for phrase in names.phrases if phrase in text and _words(phrase, names) != phrase
    ]
    pieces: list[str] = []
    at = 0
    for found in re.finditer("|".join(map(re.escape, present)), text) if present else ():
        pieces += [_words(text[at : found.start()], names), names.known[found[0]]]
        at = found.end()
    return "".join((*pieces, _words(text[at:], names)))


def _words(text: str, names: Names) -> str:
    harmless = {found.span() for found in _IN_CONTEXT.finditer(text)}

    def redacted(atom: re.Match[str]) -> str:
        part = atom[0].rstrip(_PUNCTUATION)
        is_in_path = text[: atom.start()].endswith("/") and part in _PATH_PARTS
        return atom[0] if is_in_path or atom.span() in harmless else _atom(atom[0], names)

    return _ATOM.sub(redacted, text)


def _atom(atom: str, names: Names) -> str:
    """Redact an atom without the punctuation around it; at colons, part by part."""
    for text in (atom, atom.rstrip(_PUNCTUATION), atom.strip(_PUNCTUATION)):
        start = atom.index(text)
        before, after = atom[:start], atom[start + len(text) :]
        if _is_harmless(text):
            return atom
        if text in names.known or _WITH_COLONS.fullmatch(text):
            return f"{before}{name(text, names)}{after}"
    bare = atom.strip(_PUNCTUATION)
    if ":" in bare:
        return ":".join(_atom(part, names) if part else "" for part in atom.split(":"))
    return atom.replace(bare, _word(bare, names), 1)


def _word(word: str, names: Names) -> str:
    if _is_harmless(word):
        return word
    file = _FILE.fullmatch(word)
    if file is not None:
        return f"{file[1]}{file[2] and _word(file[2], names)}{file[3]}"
    return name(word, names)


def _is_harmless(word: str) -> bool:
    return (
        word.lower() in _WORDS
        or _MEASURE.fullmatch(word) is not None
        or _OPTION.fullmatch(word) is not None
        or (word.isascii() and not any(character.isalnum() for character in word))
    )
