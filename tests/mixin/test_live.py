"""The rules and the dashboard on the real thing, in compressed time.

Each host has a stand-in for tailscaled that plays a scenario, the jobs that look at it again and again, and a node_exporter that serves their files; one
Prometheus scrapes them all. Thirty seconds of a rule are one here: durations in the rules are divided, the scenarios are as much shorter.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from support.mixin import MIXIN, RULE_FILES, alerts, expressions_of_the_dashboard
from support.processes import Forked, forked, short_directory, started, wait_until
from support.programs import program as script
from support.required import program
from support.servers import Request, http, serving
from support.statuses import encoded, peer, status

SPEED = 30
JOB_SPEED = 10
"Of the limits of TailscaleJobSlow: how long a job takes is not compressed."
SCENARIO_SECONDS = 400
ENOUGH_SECONDS = 140
"For each alert to fire, and for those that must not: an hour and a quarter of the rules' time."
LATEST_SECONDS = 400
PERIOD_SECONDS = 2
MAX_RELAY, COOLDOWN = (
    ("--max-relay-seconds", str(600 // SPEED)),
    ("--cooldown-seconds", str(600 // SPEED)),
)

Scene = Callable[[int], dict[str, Any] | None]
"What tailscaled says at a second of the scenario; None while it is down."


@dataclass(frozen=True)
class Host:
    """A scenario: what tailscaled says, what is special about its jobs, and which alerts come of it, with their peers."""

    scene: Scene
    expected: set[tuple[str, str | None]]
    watchdog: tuple[str, ...] | None = (*MAX_RELAY, *COOLDOWN)
    "Options; None where it does not run, which is so for nobody but the slow one."
    systemctl: str = "exit 0"
    after: tuple[int, str] | None = None
    "From this second on something is different: which thing, see `round_of`."


def traffic(second: int, path: str = "direct", name: str = "nas", **fields: Any) -> dict[str, Any]:
    """Returns a peer that is talked to."""
    return peer(name, path, **({"TxBytes": 1000 * second, "RxBytes": 2000 * second} | fields))


def instant(later: float) -> str:
    """Returns what time it is so many seconds from now, as tailscaled writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + later))  # noqa: TID251 - Prometheus's time is the real one, too


def usual(second: int) -> dict[str, Any]:
    """Two direct peers, one of which falls idle; one offline; a phone that comes and goes; and a restart in the middle, with its new counters."""
    flicker = "derp" if 61 <= second < 64 else "direct"
    since = second if second < 61 else second - 61
    phone = ["derp", "derp", "direct", "offline", "derp"][second // 7 % 5]
    return status(
        traffic(since, flicker, LastHandshake=instant(0)),
        traffic(5, "direct" if second < 10 else "idle", "printer"),
        peer("attic", "offline" if second > 10 else "direct"),
        traffic(since, phone, "phone", OS="iOS", RxBytes=0),
    )


def healthy(second: int) -> dict[str, Any] | None:
    """What is usual, and tailscaled away for a second."""
    return None if second == 60 else usual(second)


def turning(second: int, *names: str) -> list[dict[str, Any]]:
    """Returns peers that were direct and are on relay."""
    return [traffic(second, "direct" if second < 10 else "derp", name) for name in names]


def excluding(*names: str) -> tuple[str, ...]:
    """Returns the options of a watchdog that these peers do not matter to."""
    return (
        *MAX_RELAY,
        *COOLDOWN,
        *(option for name in names for option in ("--exclude-peer", name)),
    )


FOR_USUAL = excluding("phone", "printer")


def flapping(second: int, period: int) -> str:
    """Returns the path of a peer that changes."""
    return "direct" if second // period % 2 else "derp"


def with_key(days: float) -> dict[str, Any]:
    """Returns the Self of a node whose key expires in so many days."""
    usual: dict[str, Any] = status()["Self"]
    return usual | {"KeyExpiry": instant(days * 86400)}


HOSTS: dict[str, Host] = {
    "healthy": Host(healthy, set(), FOR_USUAL),
    "fresh": Host(
        lambda second: (
            None
            if second < 4
            else status(traffic(second, "derp" if second < 8 else "direct"), Self=with_key(90))
        ),
        set(),
    ),
    "down": Host(
        lambda second: usual(second) if second < 10 else None, {("TailscaleDown", None)}, FOR_USUAL
    ),
    "logged-out": Host(
        lambda second: usual(0) | ({"BackendState": "NeedsLogin"} if second > 9 else {}),
        {("TailscaleLoggedOut", None)},
        FOR_USUAL,
    ),
    "expiring": Host(
        lambda second: status(traffic(second), Self=with_key(3)),
        {("TailscaleKeyExpiresSoon", None)},
    ),
    "absent": Host(
        usual, {("TailscaleMetricsAbsent", None)}, FOR_USUAL, after=(20, "no collector")
    ),
    "ill": Host(
        lambda second: status(traffic(second), Health=["no relay"]), {("TailscaleHealth", None)}
    ),
    "no-udp": Host(
        lambda second: status(*turning(second, "nas", "rpi3"), peer("idle", "idle")),
        {("TailscaleNodeOnRelay", None)},
        excluding("nas", "rpi3", "idle"),
    ),
    "relayed": Host(
        lambda second: status(*turning(second, "nas"), traffic(second, name="rpi3")),
        {("TailscalePeerOnRelay", "nas")},
        excluding("nas"),
    ),
    "flapping": Host(
        lambda second: status(traffic(second, flapping(second, 5)), traffic(second, name="rpi3")),
        {("TailscalePeerFlaps", "nas")},
        excluding("nas"),
    ),
    "unanswered": Host(
        lambda second: status(traffic(second, RxBytes=2000 * min(second, 10))),
        {("TailscalePeerUnanswered", "nas")},
    ),
    "restless": Host(
        lambda second: status(traffic(second, flapping(second, 7), "phone", OS="android")),
        {("TailscaleRestartsTooOften", None)},
        ("--max-relay-seconds", "3", "--cooldown-seconds", "5"),
    ),
    "hopeless": Host(
        lambda second: status(traffic(second, "derp"), traffic(second, name="rpi3")),
        {("TailscaleRestartsDoNotHelp", "nas")},
        (*MAX_RELAY, "--cooldown-seconds", str(1200 // SPEED)),
    ),
    "masked": Host(
        lambda second: status(traffic(second, "derp")),
        {("TailscaleRestartFails", None)},
        systemctl="exit 1",
    ),
    "blind": Host(usual, {("TailscaleWatchdogBlind", None)}, FOR_USUAL, after=(10, "no socket")),
    "silent": Host(
        usual, {("TailscaleWatchdogSilent", None)}, FOR_USUAL, after=(10, "no watchdog")
    ),
    "stale": Host(usual, {("TailscaleTextfileStale", None)}, FOR_USUAL, after=(10, "no exporter")),
    "refused": Host(
        usual, {("TailscaleTextfileRefused", None)}, FOR_USUAL, after=(10, "a bad file")
    ),
    "slow": Host(usual, {("TailscaleJobSlow", None)}, None),
}


def test_there_is_a_scenario_for_each_alert() -> None:
    assert {name for host in HOSTS.values() for name, _ in host.expected} == {
        rule["alert"] for rule in alerts()
    }


def compressed(text: str) -> str:
    """Returns rules that take a thirtieth of the time."""
    seconds = {"m": 60, "h": 3600, "d": 86400}
    text = re.sub(
        r"(\[|for: )(\d+)([mhd])\b",
        lambda found: f"{found[1]}{int(found[2]) * seconds[found[3]] // SPEED}s",
        text,
    )
    text = re.sub(r"\* 60\b", f"* {60 // SPEED}", text)
    return re.sub(
        r'("", ""\) > )(\d+)', lambda found: f"{found[1]}{int(found[2]) / JOB_SPEED}", text
    )


class Site(NamedTuple):
    """A host while its scenario runs."""

    name: str
    host: Host
    directory: Path
    forks: Forked
    collector: subprocess.Popen[bytes]
    begun: float

    def round_of(self, number: int) -> None:
        """Runs its jobs once, in the order of their intervals."""
        second = time.monotonic() - self.begun
        different = self.host.after[1] if self.host.after and second >= self.host.after[0] else ""
        if different == "no collector":
            self.collector.terminate()
        if different == "a bad file":
            (self.directory / "files/backup.prom").write_text("backup_age_seconds yesterday\n")
        if different != "no exporter":
            self._job("exporter", "tailscale-peers")
        if self.host.watchdog is not None and different != "no watchdog":
            nowhere = (
                ("--source", "localapi", "--socket", f"{self.directory}/none")
                if different == "no socket"
                else ()
            )
            self._job(
                "watchdog",
                "tailscale-watchdog",
                "--state-dir",
                f"{self.directory}/state",
                *self.host.watchdog,
                *nowhere,
            )
        if self.name == "healthy" or (self.name != "slow" and number % 4 == 0):
            self._job("native-metrics", "tailscale-native")
        if self.name == "healthy":
            self._job("keepalive", "tailscale-keepalive", "--count", "1", "--ping-timeout", "0.2")

    def _job(self, job: str, file: str, *options: str) -> None:
        path = f"{self.directory}/files/{file}.prom"
        self.forks.run(
            job,
            "--socket",
            f"{self.directory}/s",
            "--metrics-path",
            path,
            *options,
            programs=self.directory / "bin",
        )


@contextmanager
def collecting(files: Path) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """Runs a node_exporter over a directory, on a socket that is its own from the beginning, so that its port is nobody else's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        arguments = [
            "--web.systemd-socket",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={files}",
        ]
        descriptor = listening.fileno()
        exporter = program("prometheus-node-exporter", "prometheus-node-exporter")
        shell = f'exec 3<&{descriptor}; export LISTEN_PID=$$ LISTEN_FDS=1; exec {exporter} "$@"'
        process = subprocess.Popen(
            ["bash", "-c", shell, "sh", *arguments],
            pass_fds=[descriptor],
            stderr=subprocess.DEVNULL,
        )
        with process:
            try:
                yield process, listening.getsockname()[1]
            finally:
                process.kill()


@contextmanager
def playing(name: str, host: Host, directory: Path) -> Generator[None]:
    """Plays a scenario on a host's socket; the slow one gives each status only after seconds."""
    if name == "slow":

        def respond(request: Request) -> Iterator[bytes]:
            due = request.at + 4
            while time.monotonic() < due:
                yield b""
            yield http(encoded(traffic(1)))

        with serving(directory / "s", respond):
            yield
        return
    seen = [(second, host.scene(second)) for second in range(SCENARIO_SECONDS)]
    observed = [
        {"captured_at": 1e9 + second, **({"fault": "down"} if shown is None else {"status": shown})}
        for second, shown in seen
    ]
    capture = directory / "capture.ndjson"
    capture.write_text("".join(json.dumps(observation) + "\n" for observation in observed))
    with started("stand-in", "--capture", str(capture), "--socket", f"{directory}/s"):
        wait_until((directory / "s").exists, "the stand-in listens")
        yield


def again_and_again(sites: list[Site], stop: threading.Event) -> None:
    """Runs the jobs of hosts, one round after the other, each no sooner than its period after the one before."""
    number = 0
    while not stop.is_set():
        due = time.monotonic() + PERIOD_SECONDS
        for site in sites:
            if not stop.is_set():
                site.round_of(number)
        number += 1
        stop.wait(due - time.monotonic())


class Prometheus(NamedTuple):
    """A Prometheus that runs."""

    url: str

    def asked(self, query: str) -> list[dict[str, Any]]:
        """Returns the series that it has for a query."""
        url = f"{self.url}/api/v1/query?{urlencode({'query': query})}"
        with urlopen(url, timeout=30) as answer:  # noqa: S310 - of this machine
            found: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
        return found

    def fired(self) -> dict[str, set[tuple[str, str | None]]]:
        """Returns the alerts that fired so far, by host."""
        fired: dict[str, set[tuple[str, str | None]]] = {name: set() for name in HOSTS}
        for found in self.asked('max_over_time(ALERTS{alertstate="firing"}[1h])'):
            labels = found["metric"]
            fired[labels["instance"]].add((labels["alertname"], labels.get("peer")))
        return fired

    def is_up(self) -> bool:
        """Reports whether it answers yet."""
        try:
            return self.asked("vector(1)") != []
        except OSError:
            return False


@contextmanager
def prometheus(directory: Path, ports: dict[str, int]) -> Generator[Prometheus]:
    """Runs a Prometheus with the rules, compressed, that scrapes these ports each second."""
    for name in RULE_FILES:
        (directory / name).write_text(compressed((MIXIN / name).read_text()))
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
        for name, port in ports.items()
    ]
    (directory / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": list(RULE_FILES),
                "scrape_configs": [{"job_name": "integrations/unix", "static_configs": targets}],
            }
        )
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    options = [
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = subprocess.Popen(
        [program("prometheus", "prometheus"), *options], stderr=subprocess.DEVNULL
    )
    with process:
        try:
            running = Prometheus(f"http://127.0.0.1:{port}")
            wait_until(running.is_up, "Prometheus answers")
            yield running
        finally:
            process.kill()


@pytest.fixture
def watched() -> Iterator[Prometheus]:
    """All hosts with their scenarios, and the Prometheus that watches them."""
    stop = threading.Event()
    with short_directory() as root, ExitStack() as running:
        ports: dict[str, int] = {}
        sites: list[Site] = []
        servers = [running.enter_context(forked()) for _ in range(3)]
        for number, (name, host) in enumerate(HOSTS.items()):
            directory = root / str(number)
            for below in ("files", "state", "bin"):
                (directory / below).mkdir(parents=True)
            script(directory / "bin", "systemctl", host.systemctl)
            collector, ports[name] = running.enter_context(collecting(directory / "files"))
            running.enter_context(playing(name, host, directory))
            sites.append(
                Site(
                    name,
                    host,
                    directory,
                    servers[2] if name == "slow" else servers[number % 2],
                    collector,
                    time.monotonic(),
                )
            )
        shared = [[site for site in sites if site.forks is server] for server in servers]
        threads = [threading.Thread(target=again_and_again, args=(some, stop)) for some in shared]
        for thread in threads:
            thread.start()
            running.callback(thread.join)
        running.callback(stop.set)
        yield running.enter_context(prometheus(root, ports))


def test_each_alert_fires_in_its_scenario_and_in_no_other_and_the_dashboard_has_series(
    watched: Prometheus,
) -> None:
    """One test, for what it takes is minutes. Alerts that must not fire can only be waited for; each query of the dashboard has series of some host."""
    expected = {name: host.expected for name, host in HOSTS.items()}
    begun = time.monotonic()
    while (past := time.monotonic() - begun) < ENOUGH_SECONDS or (
        past < LATEST_SECONDS
        and any(expected[name] - fired for name, fired in watched.fired().items())
    ):
        time.sleep(1)
    assert watched.fired() == expected

    replaced = {
        'instance="$instance"': 'instance=~".+"',
        "$peer": ".*",
        "$__rate_interval": "30s",
        "[2m]": "[1h]",
    }
    for expression in expressions_of_the_dashboard():
        asked = expression
        for variable, value in replaced.items():
            asked = asked.replace(variable, value)
        assert watched.asked(asked.removesuffix(" or vector(0)")), expression
