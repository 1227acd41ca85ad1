"""Measure CPU time and memory of the jobs and the offline tools: `make bench`.

Each job is compared with a process that only imports the three libraries. Compare the
ratios, not the seconds, because machines are shared and noisy: each ratio is the median
over pairs of consecutive runs.
"""

from __future__ import annotations

import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAPTURE = Path(__file__).parents[1] / "tests/fixtures/mixed-paths.json"
USERMETRICS = CAPTURE.with_name("usermetrics.txt")
PACKAGE = Path(__file__).parents[1] / "src" / "tsfc"
TSFC = (str(Path(sys.executable).with_name("tsfc")),)
"Installed program."
IMPORTS = (sys.executable, "-c", "import msgspec, returns.result, prometheus_client")
USUAL, FEW, MANY_PEERS = 15, 5, 1_000
PEERS = (5, 100, 1_000, 10_000)
AIMS = {("exporter", 5): 1.15, ("exporter", 1_000): 2.0, ("keepalive", 5): 0.9, ("--help", 0): 0.75}
"Limits of the ratio, by job and number of peers."
POLICY_AIM = 1.1
"Limit of the CPU time of the watchdog under the guarded policy, as a ratio."
UNREACHABLE_AIM_SECONDS, UNREACHABLE_AIM_MIB = 17, 150
MEMORY_AIM_MIB = 200
"Memory limit of every job at 10,000 peers."


@dataclass(frozen=True)
class Cost:
    """Resources that one process used."""

    cpu_seconds: float
    wall_seconds: float
    peak_mib: float


def main() -> None:
    """Print a table of the jobs by number of peers, then the other measurements.

    With the argument `agent`, print only what a minute of the agent costs.
    """
    compileall.compile_dir(PACKAGE, quiet=1)  # as an installed package is
    if sys.argv[1:] == ["agent"]:
        minutes()
        return
    print(f"{'job':16}{'peers':>7}{'CPU s':>9}{'imports':>9}{'ratio':>7}{'aim':>6}{'peak MiB':>10}")
    row("--help", 0, (*TSFC, "--help"), runs=USUAL)
    for peers in PEERS:
        with tempfile.TemporaryDirectory(prefix="tsfc-") as name:
            directory = Path(name)
            tailscaled = stand_in(directory, peers, is_direct=True)
            try:
                for job, extra in jobs(directory).items():
                    command = (*TSFC, job, "--socket", f"{directory}/s", *extra)
                    row(job, peers, command, runs=FEW if peers > MANY_PEERS else USUAL)
            finally:
                tailscaled.terminate()
                tailscaled.wait()
    policies()
    minutes()
    unreachable_peers(1_000)
    offline()


def jobs(directory: Path) -> dict[str, tuple[str, ...]]:
    """Return the options of each job. Keepalive writes no metrics by default."""
    return {
        "exporter": ("--metrics-path", f"{directory}/peers.prom"),
        "native-metrics": ("--metrics-path", f"{directory}/native.prom"),
        "keepalive": (),
        "watchdog": (
            "--metrics-path",
            f"{directory}/watchdog.prom",
            "--state-dir",
            f"{directory}/state",
            "--unit=tailscaled.service",
        ),
    }


def row(job: str, peers: int, command: Sequence[str], *, runs: int) -> None:
    """Measure a command and print its table row."""
    pairs = [(measure(command), measure(IMPORTS)) for _ in range(runs)]
    cpu = statistics.median(ours.cpu_seconds for ours, _ in pairs)
    imports = statistics.median(theirs.cpu_seconds for _, theirs in pairs)
    ratio = statistics.median(ours.cpu_seconds / theirs.cpu_seconds for ours, theirs in pairs)
    peak = max(ours.peak_mib for ours, _ in pairs)
    aim = AIMS.get((job, peers))
    limit = "" if aim is None else f"{aim:.2f}"
    columns = f"{job:16}{peers or '':>7}{cpu:9.3f}{imports:9.3f}{ratio:7.2f}{limit:>6}{peak:10.1f}"
    print(columns, flush=True)


def policies() -> None:
    """Measure the watchdog under both policies, with peers that it knows as direct."""
    print()
    for peers in (5, MANY_PEERS):
        with tempfile.TemporaryDirectory(prefix="tsfc-") as name:
            directory = Path(name)
            tailscaled = stand_in(directory, peers, is_direct=True)
            try:
                watchdog = (*TSFC, "watchdog", *jobs(directory)["watchdog"], f"--socket={name}/s")
                documented, guarded = (
                    (*watchdog, f"--state-dir={name}/{policy}", f"--policy={policy}")
                    for policy in ("documented", "guarded")
                )
                # The first run of each creates its state.
                pairs = [(measure(guarded), measure(documented)) for _ in range(USUAL + 1)][1:]
            finally:
                tailscaled.terminate()
                tailscaled.wait()
        ratio = statistics.median(one.cpu_seconds / other.cpu_seconds for one, other in pairs)
        print(
            f"watchdog, {peers} peers: {ratio:.2f} times as much CPU under the guarded policy "
            f"(aim {POLICY_AIM})",
            flush=True,
        )


RUNS_A_MINUTE = {"exporter": 2, "native-metrics": 4, "keepalive": 6, "watchdog": 1}
AGENT_SECONDS = 180.0
AGENT_AIMS = {5: (80, 28), 100: (40, 29), MANY_PEERS: (9, 36)}
"Smallest ratio of the oneshots to the agent, and largest memory in MiB, by peers."


def minutes() -> None:
    """Measure a minute of the agent against that of the oneshots, on a quick server."""
    print()
    if shutil.which("go") is None:
        print("agent: not measured, because its server (tools/localapi) needs Go")
        return
    for peers, (least, most) in AGENT_AIMS.items():
        with tempfile.TemporaryDirectory(prefix="tsfc-") as name:
            tailscaled = quick_server(Path(name), peers)
            try:
                before = oneshots_a_minute(Path(name))
                agent, start_mib, end_mib = agent_minute(Path(name))
                after = oneshots_a_minute(Path(name))
            finally:
                tailscaled.terminate()
                tailscaled.wait()
        oneshots = (before + after) / 2
        print(
            f"a minute, {peers} peers: oneshots {oneshots:.3f} s of CPU, agent {agent:.4f} s, "
            f"1/{oneshots / agent:.0f} (aim 1/{least}); agent {end_mib:.1f} MiB (aim {most}), "
            f"{end_mib - start_mib:+.1f} since the first minute",
            flush=True,
        )


def oneshots_a_minute(directory: Path) -> float:
    """Return the CPU seconds of the thirteen runs of a minute."""
    total = 0.0
    for job, number in RUNS_A_MINUTE.items():
        command = (*TSFC, job, "--socket", f"{directory}/s", *jobs(directory)[job])
        total += number * statistics.median(measure(command).cpu_seconds for _ in range(FEW))
    return total


def agent_minute(directory: Path) -> tuple[float, float, float]:
    """Return the agent's CPU seconds a minute, and its memory at first and at last."""
    command = (
        *TSFC,
        "agent",
        f"--socket={directory}/s",
        f"--metrics-dir={directory}",
        f"--state-dir={directory}/state",
        "--watchdog-args=--unit=tailscaled.service",
    )
    with subprocess.Popen(command) as process:
        time.sleep(61)  # its start, and all runs once
        before, start_mib = cpu_seconds(process.pid), resident_mib(process.pid)
        time.sleep(AGENT_SECONDS)
        after, end_mib = cpu_seconds(process.pid), resident_mib(process.pid)
        process.terminate()
    return (after - before) * 60 / AGENT_SECONDS, start_mib, end_mib


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process with one thread."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def quick_server(directory: Path, peers: int) -> subprocess.Popen[bytes]:
    """Build and start tools/localapi, whose peers are direct."""
    capture = directory / "capture.ndjson"
    write_capture(capture, peers, is_direct=True)
    status = json.loads(capture.read_text())["status"]
    (directory / "status.json").write_text(json.dumps(status, indent="\t"))
    build = ("go", "build", "-o", f"{directory}/localapi", ".")
    subprocess.run(build, cwd=Path(__file__).parent / "localapi", check=True)
    process = subprocess.Popen(
        (f"{directory}/localapi", f"{directory}/s", f"{directory}/status.json", str(USERMETRICS))
    )
    while not (directory / "s").exists():
        time.sleep(0.01)
    return process


def unreachable_peers(peers: int) -> None:
    """Measure keepalive if no peer responds: three pings that time out after 5 s."""
    with tempfile.TemporaryDirectory(prefix="tsfc-") as name:
        directory = Path(name)
        tailscaled = stand_in(directory, peers, is_direct=False)
        try:
            cost = measure((*TSFC, "keepalive", "--socket", f"{directory}/s"))
        finally:
            tailscaled.terminate()
            tailscaled.wait()
    print(
        f"\nkeepalive, {peers} unreachable peers: {cost.wall_seconds:.2f} s, "
        f"{cost.cpu_seconds:.2f} s of CPU, {cost.peak_mib:.0f} MiB"
    )
    print(
        f"aims: {UNREACHABLE_AIM_SECONDS} s, {UNREACHABLE_AIM_MIB} MiB; "
        f"every job at 10,000 peers: {MEMORY_AIM_MIB} MiB"
    )


DECODE = """
import gc, sys, msgspec
from tsfc.core.evaluation.observation import Observation
from tsfc.core.tailscale.status import Status
gc.disable()
line, status = msgspec.json.Decoder(Observation), msgspec.json.Decoder(Status)
for text in open(sys.argv[1], "rb"): status.decode(line.decode(text).status)
"""
"The minimal work of a replay: decode each line of the capture."
REPLAY_AIM, REPLAY_AIM_MIB, PARALLEL_AIM = 2.0, 100, 1.7
SIMULATE_AIMS = {("permanent-relay", 30): 10, ("thousand-peers", 1): 60}
"Limit of CPU seconds, by scenario and number of days."


def offline() -> None:
    """Measure replay (against decoding alone, and in parallel) and simulate."""
    with tempfile.TemporaryDirectory(prefix="tsfc-") as name:
        capture = f"{name}/capture.ndjson"
        # Replay, compared with decoding alone.
        write_long_capture(Path(capture), observations=10_000, peers=100)
        pairs = [
            (measure((*TSFC, "replay", capture)), measure((sys.executable, "-c", DECODE, capture)))
            for _ in range(FEW)
        ]
        ratio = statistics.median(ours.cpu_seconds / theirs.cpu_seconds for ours, theirs in pairs)
        peak = max(ours.peak_mib for ours, _ in pairs)
        cpu = statistics.median(ours.cpu_seconds for ours, _ in pairs)
        print(
            f"\nreplay of 10,000 observations of 100 peers: {cpu:.1f} s of CPU, "
            f"{ratio:.2f} times decoding alone (aim {REPLAY_AIM}), "
            f"{peak:.0f} MiB (aim {REPLAY_AIM_MIB})"
        )
        # Several captures at once, which run in parallel.
        times = [
            (measure((*TSFC, "replay", capture)), measure((*TSFC, "replay", *([capture] * 4))))
            for _ in range(FEW)
        ]
        gain = statistics.median(4 * one.wall_seconds / four.wall_seconds for one, four in times)
        print(
            f"four such captures on {len(os.sched_getaffinity(0))} processors: "
            f"{gain:.2f} times as fast as in sequence (aim {PARALLEL_AIM} on two)"
        )
    # Simulations.
    for (scenario, days), aim in SIMULATE_AIMS.items():
        cost = measure((*TSFC, "simulate", scenario, "--days", str(days)))
        print(
            f"simulate {scenario} for {days} days: {cost.cpu_seconds:.1f} s of CPU (aim {aim}), "
            f"{cost.peak_mib:.0f} MiB",
            flush=True,
        )


def write_long_capture(path: Path, *, observations: int, peers: int) -> None:
    """Write a capture in which one peer in twenty is on relay."""
    write_capture(path, peers, is_direct=True)
    status = json.loads(path.read_text())["status"]
    for number, peer in enumerate(status["Peer"].values()):
        peer["CurAddr"] = "" if number % 20 == 0 else peer["CurAddr"]
    document = json.dumps(status, separators=(",", ":"))
    with path.open("w") as file:
        for number in range(observations):
            file.write(f'{{"captured_at":{1_800_000_000 + 60 * number},"status":{document}}}\n')


def measure(command: Sequence[str]) -> Cost:
    """Run a command, discard its standard output, and return its cost."""
    before = os.times().elapsed
    actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(command[0], tuple(command), os.environ, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"`{' '.join(command)}`: exit status {os.waitstatus_to_exitcode(status)}")
    return Cost(
        usage.ru_utime + usage.ru_stime, os.times().elapsed - before, usage.ru_maxrss / 1024
    )


def stand_in(directory: Path, peers: int, *, is_direct: bool) -> subprocess.Popen[bytes]:
    """Start a stand-in for tailscaled with all peers direct, or unreachable."""
    capture = directory / "capture.ndjson"
    write_capture(capture, peers, is_direct=is_direct)
    process = subprocess.Popen(
        (*TSFC, "stand-in", "--capture", str(capture), "--socket", f"{directory}/s"),
        stdout=subprocess.PIPE,
    )
    if process.stdout is None or not process.stdout.readline():
        sys.exit("starting the stand-in: it failed; see its error above")
    return process


def write_capture(path: Path, peers: int, *, is_direct: bool) -> None:
    """Write a capture of one observation.

    The peers are written one by one to keep this process small: a child's peak memory
    includes that of its parent at the start.
    """
    document: dict[str, Any] = json.loads(CAPTURE.read_text())
    real = next(iter(document["Peer"].values()))
    document["Self"]["TailscaleIPs"] = ["100.127.255.254"]
    del document["Peer"]
    path_fields = (
        {"CurAddr": "192.0.2.7:41641", "Relay": "fra"}
        if is_direct
        else {"CurAddr": "", "Relay": ""}
    )
    with path.open("w") as file:
        file.write(f'{{"captured_at": 0, "status": {json.dumps(document)[:-1]}, "Peer": {{')
        for number in range(peers):
            names = {
                "ID": f"n{number}CNTRL",
                "HostName": f"host{number}",
                "DNSName": f"host{number}.lab.ts.net.",
            }
            ips = [f"100.{64 + number // 65536}.{number // 256 % 256}.{number % 256}"]
            peer = (
                real | names | path_fields | {"TailscaleIPs": ips, "Online": True, "Active": True}
            )
            file.write(f'{", " if number else ""}"nodekey:{number:064x}": {json.dumps(peer)}')
        file.write("}}}\n")


if __name__ == "__main__":
    main()
