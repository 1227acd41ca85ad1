"""A second statement of the rules of `GuardedPolicy`, for runs that all see the peers.

It keeps a diary of each peer instead of times and counters, and goes through it again
for each question. It shares no code with the first.
"""

from __future__ import annotations

from typing import NamedTuple

from tsfc.core.watchdog.policy import GuardedPolicy
from tsfc.core.watchdog.remedy import Remedy

DAY = 86_400
Sights = dict[str, str]
"What a run sees of each peer: `direct`, `relay`, `unknown` or `absent`."


class Page(NamedTuple):
    """Entry of a diary."""

    at: int
    what: str
    "`direct`, `detected`, `told`, or that a remedy `helped` or `failed`."
    remedy: Remedy | None = None


Diary = tuple[Page, ...]


class Deed(NamedTuple):
    """A remedy that was applied."""

    at: int
    cooldown: int
    remedy: Remedy
    cause: str
    direct: int
    "Number of peers that were direct."
    open: frozenset[str]
    "Peers that were on relay, and whose outcome is still to come."
    result: str
    is_done: bool
    "Its command succeeded. Else it failed, and left tailscaled running."


class Book(NamedTuple):
    """All that the second statement remembers."""

    diaries: dict[str, Diary]
    on_relay: frozenset[str] = frozenset()
    "Peers that the last run saw on relay."
    deeds: tuple[Deed, ...] = ()
    begun_at: int | None = None
    "The first run."


class Answer(NamedTuple):
    """What a run decides."""

    verdicts: dict[str, tuple[str, int]]
    "Reason and seconds on relay."
    remedy: tuple[str, Remedy] | None
    "The remedy, and the peer that is its cause."
    said: list[str]
    "The first two words of each line."


def answer(book: Book, sights: Sights, now: int, policy: GuardedPolicy) -> tuple[Book, Answer]:
    """Decide; return the book after that as well, without the remedy."""
    verdicts = {
        name: path(book, name, sight, now) for name, sight in sights.items() if sight != "absent"
    }
    after, outcomes = observed(book, sights, now)
    ready: list[tuple[bool, int, str]] = []
    for name, (reason, seconds) in verdicts.items():
        if reason == "waiting" and seconds > policy.max_relay_seconds:
            obstacle = why_not(after, name, seconds, now, policy)
            verdicts[name] = (obstacle or "cooldown", seconds)
            is_first = leads_back(after, name)
            ready += [(not is_first, -seconds, name)] if obstacle is None else []
    remedy = None
    if ready:
        is_usual, _, cause = min(ready)
        verdicts[cause] = ("restart", verdicts[cause][1])
        usual = first_due(after, cause, verdicts[cause][1], now, policy)[1]
        remedy = (cause, usual if is_usual else Remedy.RESTART)
    return told(after, verdicts, outcomes, remedy, now=now, policy=policy)


def path(book: Book, name: str, sight: str, now: int) -> tuple[str, int]:
    """Reason and seconds on relay, as far as the path alone decides."""
    if name not in book.on_relay:
        return ("detected" if sight == "relay" else sight, 0)
    began = relay_began(book.diaries[name])
    if sight == "relay":
        return "waiting", now - began
    if sight == "direct":
        is_cure = cooldown_left(book, now) > 0 and began <= book.deeds[-1].at
        is_cure = is_cure and book.deeds[-1].is_done
        return ("restored" if is_cure else "recovered", 0)
    return sight, 0


def relay_began(diary: Diary) -> int:
    """When the last relay of a peer began."""
    return [page.at for page in diary if page.what == "detected"][-1]


def leads_back(book: Book, name: str) -> bool:
    """Whether a peer on relay has to lead back from a port that made it worse.

    Another peer was direct and is on relay since then.
    """
    done = [deed for deed in book.deeds if deed.is_done]
    if not done or (done[-1].remedy, done[-1].result) != (Remedy.OTHER_PORT, "worse"):
        return False
    since = {peer: relay_began(book.diaries[peer]) for peer in book.on_relay}
    is_lost = any(at > done[-1].at for at in since.values())
    return is_lost and name == done[-1].cause and since[name] <= done[-1].at


def cooldown_left(book: Book, now: int) -> int:
    """Seconds until the cooldown of each remedy is over.

    After commands that failed in a row, that of the last one is twice that before.
    """
    ends = [deed.at + deed.cooldown for deed in book.deeds]
    failed = [deed for deed in book.deeds if not deed.is_done]
    if failed and failed[-1] is book.deeds[-1]:
        done = [number for number, deed in enumerate(book.deeds) if deed.is_done]
        in_a_row = len(book.deeds) - (done[-1] + 1 if done else 0)
        ends.append(failed[-1].at + min(DAY, failed[-1].cooldown * 2 ** (in_a_row - 1)))
    return max([0, *(end - now for end in ends)])


def observed(book: Book, sights: Sights, now: int) -> tuple[Book, dict[str, str]]:
    """The book after a look at the peers, and what became of remedies, by their cause."""
    diaries = dict(book.diaries)
    on_relay = frozenset(name for name, sight in sights.items() if sight == "relay")
    for name in on_relay - book.on_relay:
        diaries[name] += (Page(now, "detected"),)
    deeds = [judged(deed, with_late(deed, sights, diaries, now), now) for deed in book.deeds]
    outcomes: dict[str, str] = {}
    for before, (after, helped, failed) in zip(book.deeds, deeds, strict=True):
        for name in sights:
            what = "helped" if name in helped else "failed"
            diaries[name] += (Page(now, what, after.remedy),) if name in helped | failed else ()
        outcomes |= {after.cause: after.result} if after.result != before.result else {}
    for name, sight in sights.items():
        diaries[name] += (Page(now, "direct"),) if sight == "direct" else ()
    begun_at = now if book.begun_at is None else book.begun_at
    return Book(diaries, on_relay, tuple(deed for deed, *_ in deeds), begun_at), outcomes


def with_late(deed: Deed, sights: Sights, diaries: dict[str, Diary], now: int) -> Sights:
    """The sights, without those that are too late to tell what a remedy did."""
    if now - deed.at <= 600:
        return sights
    stayed = {
        name: sight == "relay" and deed.at >= relay_began(diaries[name])
        for name, sight in sights.items()
    }
    return {name: "relay" if stayed[name] else "unknown" for name in sights}


def judged(deed: Deed, sights: Sights, now: int) -> tuple[Deed, set[str], set[str]]:
    """The deed after a look at the peers, whom it helped, and whom it did not."""
    helped = {name for name in deed.open if sights[name] == "direct"}
    if now - deed.at < 300:
        is_cured = deed.result == "pending" and sights[deed.cause] == "direct"
        result = "helped" if is_cured else deed.result
        return deed._replace(open=deed.open - helped, result=result), helped, set()
    failed = {name for name in deed.open if sights[name] == "relay"}
    return deed._replace(open=frozenset(), result=ended(deed, sights)), helped, failed


def ended(deed: Deed, sights: Sights) -> str:
    """The result of a remedy at its end."""
    if deed.result != "pending":
        return deed.result
    if sights[deed.cause] == "relay":
        is_worse = list(sights.values()).count("direct") < deed.direct
        return "worse" if is_worse else "no_effect"
    return "helped" if sights[deed.cause] == "direct" else "unconfirmed"


def why_not(book: Book, name: str, seconds: int, now: int, policy: GuardedPolicy) -> str | None:
    """Why a peer that is on relay for too long is no cause of a remedy."""
    spent = [
        deed
        for deed in book.deeds
        if now - deed.at < DAY and deed.result != "helped" and deed.is_done
    ]
    obstacles = {
        "excluded": name in policy.excluded,
        "never_direct": not is_known(book.diaries[name], now, policy),
        "patient": seconds <= first_due(book, name, seconds, now, policy)[0]
        and not leads_back(book, name),
        "cooldown": cooldown_left(book, now) > 0,
        "held": len(spent) >= policy.budget,
        "confirming": min(seconds, now - (book.begun_at or 0)) < 150,
    }
    return next((obstacle for obstacle, applies in obstacles.items() if applies), None)


def is_known(diary: Diary, now: int, policy: GuardedPolicy) -> bool:
    """Whether the peer was seen direct lately. The time is kept to the hour."""
    hours = [page.at // 3600 for page in diary if page.what == "direct"]
    return bool(hours) and now - hours[-1] * 3600 <= policy.known_direct_days * DAY


def allowed(book: Book, policy: GuardedPolicy) -> tuple[Remedy, ...]:
    """Remedies that may be applied.

    Only another port, if one has helped since the last restart, and none after it made
    it worse, and its command does not fail.
    """
    is_good = False
    for deed in book.deeds:
        if deed.is_done and (deed.remedy is Remedy.RESTART or deed.result == "worse"):
            is_good = False
        elif deed.is_done and deed.result == "helped":
            is_good = True
    is_stay = is_good and Remedy.OTHER_PORT in policy.remedies
    is_stay = is_stay and just_failed(book) is not Remedy.OTHER_PORT
    return (Remedy.OTHER_PORT,) if is_stay else policy.remedies


def just_failed(book: Book) -> Remedy | None:
    """The remedy whose command failed last, with none after it."""
    return book.deeds[-1].remedy if book.deeds and not book.deeds[-1].is_done else None


def first_due(
    book: Book, name: str, seconds: int, now: int, policy: GuardedPolicy
) -> tuple[int, Remedy]:
    """The remedy that comes next, and the seconds on relay that it has to exceed.

    If there is a choice of several that are due, the one that just failed is none.
    """
    diary = book.diaries[name]
    dues = {remedy: due(diary, remedy, now, policy) for remedy in allowed(book, policy)}
    ready = {remedy: least for remedy, least in dues.items() if least < seconds}
    if len(ready) > 1:
        ready = {remedy: ready[remedy] for remedy in ready if remedy is not just_failed(book)}
    least, _, remedy = min(
        (least, number, remedy) for number, (remedy, least) in enumerate((ready or dues).items())
    )
    return least, remedy


def due(diary: Diary, remedy: Remedy, now: int, policy: GuardedPolicy) -> int:
    """Whole seconds on relay that a remedy has to exceed."""
    weight = {"helped": 0.0, "failed": 0.0}
    for page in diary:
        if page.remedy is remedy:
            weight[page.what] += 2 ** ((page.at - now) / DAY / policy.half_life_days)
    chance = (weight["helped"] + 1) / (weight["helped"] + weight["failed"] + 1)
    recent = [page.what for page in since_direct(diary) if page.remedy is remedy]
    return round(policy.max_relay_seconds / chance / policy.discount ** len(recent))


def since_direct(diary: Diary) -> Diary:
    """The pages after the peer was last direct. In these, no remedy has helped."""
    direct = [number for number, page in enumerate(diary) if page.what == "direct"]
    return diary[direct[-1] + 1 :] if direct else diary


WORDS = {"never_direct": "NEVER-DIRECT", "restored": "RECOVERED", "other-port": "OTHER-PORT"}
SILENT = {"direct", "unknown"}


def told(
    book: Book,
    verdicts: dict[str, tuple[str, int]],
    outcomes: dict[str, str],
    remedy: tuple[str, Remedy] | None,
    *,
    now: int,
    policy: GuardedPolicy,
) -> tuple[Book, Answer]:
    """The answer with its lines.

    An outcome is told instead of the verdict, unless that is a remedy: then both are.
    """
    diaries = dict(book.diaries)
    words = [(name, "OUTCOME") for name in outcomes]
    for name, (reason, _) in verdicts.items():
        is_cause = remedy is not None and remedy[0] == name
        if reason in SILENT or (name in outcomes and not is_cause):
            continue
        if reason in {"patient", "never_direct"}:
            pause = 3600 if reason == "patient" else 7 * DAY
            before = [
                page.at
                for page in since_direct(diaries[name])
                if page.what == "told"
                and (reason == "patient" or not is_known(diaries[name], page.at, policy))
            ]
            if before and now - before[-1] < pause:
                continue
            diaries[name] += (Page(now, "told"),)
        what = remedy[1] if is_cause and remedy is not None else reason
        words.append((name, WORDS.get(what, what.upper())))
    said = [f"{word}: {name}" for name, word in sorted(words, key=lambda line: line[0])]
    return book._replace(diaries=diaries), Answer(verdicts, remedy, said)


def tidy(book: Book) -> Book:
    """The book without the pages that no question asks for."""

    def tidied(name: str) -> Diary:
        recent = since_direct(book.diaries[name])
        old = book.diaries[name][: len(book.diaries[name]) - len(recent)]
        kinds = ["told", *(["detected"] if name in book.on_relay else [])]
        asked = [[page for page in recent if page.what == kind][-1:] for kind in kinds]
        kept = [page for page in recent if page.remedy is not None or [page] in asked]
        return (*(page for page in old if page.remedy is not None), *old[-1:], *kept)

    return book._replace(diaries={name: tidied(name) for name in book.diaries})
