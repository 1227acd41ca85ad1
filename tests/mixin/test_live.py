"""Rules and dashboard on a real Prometheus and node_exporter, in compressed time.

Each host has a fake tailscaled that plays a scenario, the jobs, and a node_exporter
that serves their files. One Prometheus scrapes all hosts. Time runs 30 times as fast:
the durations in the rules are divided, and the scenarios are as much shorter. On a
machine that is too slow or too busy for that, all of them are longer by one factor, the
pace.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from support.mixin import ROOT, alerts, expressions_of_the_dashboard
from support.processes import Forked, forked, run, series, short_directory, started, wait_until
from support.programs import program as script
from support.required import program
from support.servers import Request, http, serving
from support.statuses import encoded, peer, status
from tsfc.core.watchdog.memory import Memory, PeerMemory, Traffic
from tsfc.core.watchdog.policy import EXPERIMENT_SECONDS
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy, Stage
from tsfc.core.watchdog.state import State, encode
from tsfc.mixin import selector
from tsfc.mixin.documents import documents

SPEED = 30
"Factor by which time runs faster, at a pace of 1."
DAY_SPEED = 60 * SPEED
"Divisor of the `for` of alerts that wait for days."
JOB_SPEED = 10
"Divisor of the limits of TailscaleJobSlow; the duration of a job is not compressed."
SCENARIO_SECONDS = 400
ENOUGH_SECONDS = 140
"Seconds to wait for alerts that must not fire: 70 minutes in the time of the rules."
LATEST_SECONDS = 400
PERIOD_SECONDS = 2
JOB = "integrations/unix"
"Label `job` of all series, which the rules and the dashboard select."
JOBS_PER_ROUND = 37
"Upper limit of the jobs that one process forks in a round."
SLOWEST_PACE = 6.0
MAX_RELAY, COOLDOWN = (
    ("--max-relay-seconds", str(600 // SPEED)),
    ("--cooldown-seconds", str(600 // SPEED)),
)

Scene = Callable[[int], dict[str, Any] | None]
"Status at a second of the scenario; None while tailscaled is down."


@dataclass(frozen=True)
class Host:
    """A host: its scenario, the options of its jobs, and the alerts that must fire."""

    scene: Scene
    expected: set[tuple[str, str | None]]
    "Alerts that must fire, each with its peer."
    watchdog: tuple[str, ...] | None = (*MAX_RELAY, *COOLDOWN)
    "Options of the watchdog; None if it does not run."
    systemctl: str = "exit 0"
    "Shell script that replaces systemctl."
    after: tuple[int, str] | None = None
    "Second from which a fault is present, and the fault: see `Site.run_jobs`."
    state: Callable[[int, float], State] | None = None
    "State of the watchdog at the beginning, from the time and the pace; None if it has none."


def traffic(second: int, path: str = "direct", name: str = "nas", **fields: Any) -> dict[str, Any]:
    """A peer with traffic in both directions."""
    return peer(name, path, **({"TxBytes": 1000 * second, "RxBytes": 2000 * second} | fields))


def instant(later: float) -> str:
    """The time `later` seconds from now, in the format of tailscaled."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + later))  # noqa: TID251 - Prometheus uses the real time


def usual(second: int) -> dict[str, Any]:
    """Status of a healthy node.

    Two peers are direct, and one of them becomes idle. One peer goes offline, a phone
    comes and goes, and a restart of tailscaled at second 61 resets the counters.
    """
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
    """A healthy node whose tailscaled is down for one second."""
    return None if second == 60 else usual(second)


def losing_direct(second: int, *names: str) -> list[dict[str, Any]]:
    """Peers that are direct for ten seconds and then on relay."""
    return [traffic(second, "direct" if second < 10 else "derp", name) for name in names]


def excluding(*names: str) -> tuple[str, ...]:
    """Options of a watchdog that excludes these peers."""
    return (
        *MAX_RELAY,
        *COOLDOWN,
        *(option for name in names for option in ("--exclude-peer", name)),
    )


FOR_USUAL = excluding("phone", "printer")


def flapping(second: int, period: int) -> str:
    """Path that changes between direct and relay every `period` seconds."""
    return "direct" if second // period % 2 else "derp"


def with_key(days: float) -> dict[str, Any]:
    """`Self` of a node whose key expires in `days` days."""
    usual: dict[str, Any] = status()["Self"]
    return usual | {"KeyExpiry": instant(days * 86400)}


GUARDED = (*MAX_RELAY, *COOLDOWN, "--policy", "guarded")


def known(*names: str, at: int) -> dict[str, PeerMemory]:
    """Memory of peers that were direct at that time."""
    return {f"n{name}CNTRL": PeerMemory(at) for name in names}


def three_open(now: int, pace: float) -> State:
    """State with three restarts whose outcome shows after 20 seconds of the scenario.

    A restart has 300 seconds to help. They are the watchdog's own, not compressed.
    """
    judge_at = now + round(20 * pace)
    attempts = tuple(
        Attempt(
            Remedy.RESTART,
            name,
            judge_at - EXPERIMENT_SECONDS,
            judge_at,
            Stage.DONE,
            peer_id=f"n{name}CNTRL",
            subjects=(f"n{name}CNTRL",),
        )
        for name in ("nas", "rpi3", "vps")
    )
    memory = Memory(known("nas", "rpi3", "vps", at=now))
    return State(attempts=attempts, restarts=3, memory=memory, policy="guarded")


def six_futile(now: int, pace: float) -> State:
    """State with as many restarts without effect as the default budget allows."""
    del pace
    attempts = tuple(
        Attempt(Remedy.RESTART, "nas", at, at + 300, Stage.DONE, AttemptResult.NO_EFFECT)
        for at in range(now - 6 * 3600, now, 3600)
    )
    return State(attempts=attempts, restarts=6, policy="guarded")


RECEIVED_BYTES = 5000
"Bytes received from a peer from which no more data comes back."


def known_dead(now: int, pace: float) -> State:
    """State with a peer whose data plane is dead. The stand-in answers all pings."""
    del pace
    traffic = {"nnasCNTRL": Traffic(RECEIVED_BYTES, 0, dead_since=now, told_at=now)}
    return State(memory=Memory(known("nas", at=now), traffic=traffic), policy="guarded")


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
    "cut-off": Host(
        lambda second: status(
            *(peer(name, "direct" if second < 10 else "offline") for name in ("nas", "rpi3"))
        ),
        {("TailscaleAllPeersOffline", None)},
    ),
    "no-udp": Host(
        lambda second: status(*losing_direct(second, "nas", "rpi3"), peer("idle", "idle")),
        {("TailscaleNodeOnRelay", None)},
        excluding("nas", "rpi3", "idle"),
    ),
    "relayed": Host(
        lambda second: status(*losing_direct(second, "nas"), traffic(second, name="rpi3")),
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
        # On relay for three restarts: six would fire TailscaleRestartsTooOften as well.
        lambda second: status(
            traffic(second, "derp" if second < 120 else "direct"), traffic(second, name="rpi3")
        ),
        {("TailscaleRestartsDoNotHelp", "nas")},
        (*MAX_RELAY, "--cooldown-seconds", str(1200 // SPEED)),
    ),
    "futile": Host(
        lambda second: status(*(traffic(second, "derp", name) for name in ("nas", "rpi3", "vps"))),
        {("TailscaleRemediesDoNotHelp", None)},
        GUARDED,
        state=three_open,
    ),
    "carrier": Host(
        lambda second: status(traffic(second, "derp"), traffic(second, name="rpi3")),
        {("TailscalePeerNeverDirect", "nas")},
        GUARDED,
    ),
    "filtered": Host(
        lambda second: status(traffic(second, RxBytes=RECEIVED_BYTES)),
        {("TailscaleDataPlaneDead", "nas")},
        GUARDED,
        state=known_dead,
    ),
    "spent": Host(
        lambda second: status(traffic(second)),
        {("TailscaleBudgetSpent", None)},
        GUARDED,
        state=six_futile,
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


def test_each_alert_has_a_scenario() -> None:
    assert {name for host in HOSTS.values() for name, _ in host.expected} == {
        rule["alert"] for rule in alerts()
    }


def compressed(text: str, pace: float) -> str:
    """Rules with their durations divided by `SPEED`, and multiplied by the pace."""
    seconds = {"m": 60, "h": 3600, "d": 86400}

    def shorter(found: re.Match[str]) -> str:
        speed = DAY_SPEED if found[1] != "[" and found[3] == "d" else SPEED
        return found[1] + span(int(found[2]) * seconds[found[3]] / speed * pace)

    text = re.sub(r"(\[|for: )(\d+)([mhd])\b", shorter, text)
    text = re.sub(r"\* 60\b", f"* {60 / SPEED * pace}", text)
    return re.sub(
        r'("", ""\) > )(\d+)', lambda found: f"{found[1]}{int(found[2]) / JOB_SPEED * pace}", text
    )


def span(seconds: float) -> str:
    """Duration in Prometheus's format."""
    return f"{round(1000 * seconds)}ms"


def measured_pace(servers: list[Forked], directory: Path) -> float:
    """Pace at which a round takes at most its period, while all servers run jobs."""
    (directory / "status.json").write_bytes(encoded(*(traffic(1, name=f"p{n}") for n in range(4))))

    def seconds_per_job(number: int) -> float:
        begun = time.monotonic()
        for _ in range(10):
            servers[number].run(
                "exporter",
                *("--status-file", f"{directory}/status.json"),
                *("--metrics-path", f"{directory}/{number}.prom"),
            )
        return (time.monotonic() - begun) / 10

    with ThreadPoolExecutor() as threads:
        slowest = max(threads.map(seconds_per_job, range(len(servers))))
    return min(SLOWEST_PACE, max(1.0, JOBS_PER_ROUND * slowest / PERIOD_SECONDS))


class Site(NamedTuple):
    """A host whose scenario is running."""

    name: str
    host: Host
    directory: Path
    forks: Forked
    collector: subprocess.Popen[bytes]
    begun: float
    pace: float

    def run_jobs(self, number: int) -> None:
        """Run the jobs of one round, with the fault of the host, if any."""
        second = (time.monotonic() - self.begun) / self.pace
        fault = self.host.after[1] if self.host.after and second >= self.host.after[0] else ""
        if fault == "no collector":
            self.collector.terminate()
        if fault == "a bad file":
            (self.directory / "files/backup.prom").write_text("backup_age_seconds yesterday\n")
        if fault != "no exporter":
            self._job("exporter", "tailscale-peers")
        if self.host.watchdog is not None and fault != "no watchdog":
            nowhere = (
                ("--source", "localapi", "--socket", f"{self.directory}/none")
                if fault == "no socket"
                else ()
            )
            self._job(
                "watchdog",
                "tailscale-watchdog",
                "--state-dir",
                f"{self.directory}/state",
                "--unit=tailscaled.service",
                *(
                    str(round(int(option) * self.pace)) if option.isdigit() else option
                    for option in self.host.watchdog
                ),
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
            "--timeout",
            "60",
            "--metrics-path",
            path,
            *options,
            programs=self.directory / "bin",
        )


@contextmanager
def node_exporter(files: Path) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """Run a node_exporter over a directory; yield its process and port.

    It inherits a listening socket, so no other process can take its port.
    """
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
def playing(name: str, host: Host, directory: Path, pace: float) -> Generator[None]:
    """Play a scenario on a host's socket. The host `slow` delays each status by 4 s."""
    if name == "slow":

        def respond(request: Request) -> Iterator[bytes]:
            due = request.at + 4 * pace
            while time.monotonic() < due:
                yield b""
            yield http(encoded(traffic(1)))

        with serving(directory / "s", respond):
            yield
        return
    scenes = [(second, host.scene(second)) for second in range(SCENARIO_SECONDS)]
    observations = [
        {"captured_at": 1e9 + second, **({"fault": "down"} if scene is None else {"status": scene})}
        for second, scene in scenes
    ]
    capture = directory / "capture.ndjson"
    capture.write_text("".join(json.dumps(observation) + "\n" for observation in observations))
    with started(
        *("stand-in", "--capture", str(capture), "--socket", f"{directory}/s"),
        *("--speed", str(1 / pace)),
    ):
        wait_until((directory / "s").exists, "the stand-in listens")
        yield


def run_rounds(sites: list[Site], stop: threading.Event, pace: float) -> None:
    """Run the jobs of the sites, at most once every `PERIOD_SECONDS`.

    A site may be added during a round.
    """
    number = 0
    while not stop.is_set():
        due = time.monotonic() + PERIOD_SECONDS * pace
        for site in sites:
            if not stop.is_set():
                site.run_jobs(number)
        number += 1
        stop.wait(due - time.monotonic())


class Prometheus(NamedTuple):
    """A running Prometheus."""

    url: str
    pace: float

    def series(self, query: str) -> list[dict[str, Any]]:
        """Series that a query selects."""
        url = f"{self.url}/api/v1/query?{urlencode({'query': query})}"
        with urlopen(url, timeout=30) as answer:  # noqa: S310 - a local URL
            result: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
        return result

    def fired(self) -> dict[str, set[tuple[str, str | None]]]:
        """Alerts that have fired so far, by host."""
        fired: dict[str, set[tuple[str, str | None]]] = {name: set() for name in HOSTS}
        for alert in self.series('max_over_time(ALERTS{alertstate="firing"}[1h])'):
            labels = alert["metric"]
            fired[labels["instance"]].add((labels["alertname"], labels.get("peer")))
        return fired

    def is_up(self) -> bool:
        """Whether it answers queries."""
        try:
            return self.series("vector(1)") != []
        except OSError:
            return False


@contextmanager
def prometheus(directory: Path, ports: dict[str, int], pace: float) -> Generator[Prometheus]:
    """Run a Prometheus with compressed rules that scrapes these ports every second."""
    matchers = selector.parse(f'job="{JOB}"').unwrap()
    files = {
        name: text
        for kind in ("rules", "alerts")
        for name, text in documents(kind, matchers=matchers).items()
    }
    for name, text in files.items():
        (directory / name).write_text(compressed(text, pace))
    targets = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
        for name, port in ports.items()
    ]
    (directory / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": span(pace), "evaluation_interval": span(pace)},
                "rule_files": list(files),
                "scrape_configs": [{"job_name": JOB, "static_configs": targets}],
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
            running = Prometheus(f"http://127.0.0.1:{port}", pace)
            wait_until(running.is_up, "Prometheus answers")
            yield running
        finally:
            process.kill()


@pytest.fixture
def watched() -> Iterator[Prometheus]:
    """All hosts with their scenarios, and the Prometheus that scrapes them."""
    stop = threading.Event()
    with short_directory() as root, ExitStack() as running:
        servers = [running.enter_context(forked()) for _ in range(3)]
        pace = measured_pace(servers, root)
        directories = {name: root / str(number) for number, name in enumerate(HOSTS)}
        collectors: dict[str, subprocess.Popen[bytes]] = {}
        ports: dict[str, int] = {}
        for name, host in HOSTS.items():
            for below in ("files", "state", "bin"):
                (directories[name] / below).mkdir(parents=True)
            script(directories[name] / "bin", "systemctl", host.systemctl)
            collectors[name], ports[name] = running.enter_context(
                node_exporter(directories[name] / "files")
            )
        started_prometheus = running.enter_context(prometheus(root, ports, pace))

        # Run the jobs of a site as soon as its scenario begins: the first seconds matter.
        sites: list[list[Site]] = [[] for _ in servers]
        threads = [threading.Thread(target=run_rounds, args=(some, stop, pace)) for some in sites]
        for thread in threads:
            thread.start()
            running.callback(thread.join)
        running.callback(stop.set)
        for number, (name, host) in enumerate(HOSTS.items()):
            if host.state is not None:
                state = host.state(int(time.time()), pace)  # noqa: TID251 - the watchdog uses the real time
                (directories[name] / "state/state.json").write_bytes(encode(state))
            running.enter_context(playing(name, host, directories[name], pace))
            server = 2 if name == "slow" else number % 2
            sites[server].append(
                Site(
                    name,
                    host,
                    directories[name],
                    servers[server],
                    collectors[name],
                    time.monotonic(),
                    pace,
                )
            )
        yield started_prometheus


def served(port: int) -> str:
    """What a collector serves; empty if it does not listen yet."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_collector_serves_the_files_of_two_tailscaleds(box: Path) -> None:
    """Also if only one of them has the option `--accept-health`."""
    (box / "status.json").write_bytes(encoded(peer("nas"), Health=["no relay"]))
    (box / "files").mkdir()
    for name, options in (("home", []), ("work", ["--accept-health", "no relay"])):
        for job, source in (
            ("exporter", f"--status-file={box}/status.json"),
            ("native-metrics", f"--metrics-file={ROOT}/tests/fixtures/usermetrics.txt"),
        ):
            ran = run(
                *(job, source, "--label", f"tailscaled={name}"),
                *("--metrics-path", f"{box}/files/tailscale-{name}-{job}.prom"),
                *(options if job == "exporter" else ()),
            )
            assert ran == (0, "", "")
    with node_exporter(box / "files") as (_, port):
        wait_until(lambda: served(port), "node_exporter serves")
        values = series(served(port))
    assert values["node_textfile_scrape_error"] == 0
    for name, issues in (("home", 1), ("work", 0)):
        assert values[f'tailscale_health_issues{{tailscaled="{name}"}}'] == issues
        assert values[f'tailscale_peer_direct{{peer="nas",tailscaled="{name}"}}'] == 1
        assert values[f'tailscaled_health_messages{{tailscaled="{name}",type="warning"}}'] == 0


def test_each_alert_fires_only_in_its_scenario_and_each_dashboard_query_has_series(
    watched: Prometheus,
) -> None:
    """One test for both, because the scenarios take minutes."""
    # Wait until every expected alert has fired, and for those that must not.
    expected = {name: host.expected for name, host in HOSTS.items()}
    begun = time.monotonic()
    while (elapsed := (time.monotonic() - begun) / watched.pace) < ENOUGH_SECONDS or (
        elapsed < LATEST_SECONDS
        and any(expected[name] - fired for name, fired in watched.fired().items())
    ):
        time.sleep(1)
    assert watched.fired() == expected, f"at a pace of {watched.pace}"

    # Every query of the dashboard selects series of at least one host.
    replacements = {
        'instance="$instance"': 'instance=~".+"',
        "$peer": ".*",
        "$cluster": ".*",
        "$job": JOB,
        "$__rate_interval": span(30 * watched.pace),
        "[2m]": "[1h]",
    }
    for expression in expressions_of_the_dashboard():
        query = expression
        for variable, value in replacements.items():
            query = query.replace(variable, value)
        assert watched.series(query.removesuffix(" or vector(0)")), expression
