"""Command line of the lab: `python -m lab COMMAND`, used by the Makefile."""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from lab import NAT, Lab, agent, builds
from lab.builds import BuildError
from lab.fixtures import record
from lab.measure import MEASUREMENTS, measure
from lab.network import OUTAGE, NetworkError
from lab.tailnet import UnmetError

NODES = {
    "alpha": NAT.EASY,
    "bravo": NAT.EASY,
    "carol": NAT.PUBLIC,
    "delta": NAT.NO_UDP,
    "echo": NAT.HARD,
}
DOWN_SECONDS = 30.0


def build() -> int:
    """Build the programs that are missing."""
    builds.server()
    for version in (builds.NEWEST, builds.OLDEST):
        builds.tailscale(version)
    return 0


def up() -> int:
    """Start a lab in the background, and print how to use it."""
    # Build here, because the output of the background process is not shown.
    builds.server()
    builds.tailscale(builds.NEWEST)
    if _holder() is not None:
        return _complain("starting a lab: a lab is already up; `make lab-down` stops it")
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "hold"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    try:
        guide = process.stdout.read()  # ends when the lab is up or has failed
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if not guide:
        return process.wait()
    print(guide, end="")
    return 0


def hold() -> int:
    """Run a lab until SIGTERM; this is the background process of `up`."""
    # SystemExit instead of the default action, so that a signal during the start cleans
    # up.
    signal.signal(signal.SIGTERM, _exit)
    # The lock on the PID file, held until this process ends, says that a lab is up.
    with _pid_file().open("a+") as file:
        if not _lock(file):
            return _complain("starting a lab: another one is starting")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        with Lab(NODES) as lab:
            print(_guide(lab), flush=True)
            # Close the output: `up` reads it to its end.
            for stream in (sys.stdout, sys.stderr):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            # Not pause(): a signal that arrives just before pause() would not wake it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            signal.sigwait({signal.SIGTERM})
    return 0


def down() -> int:
    """Stop the lab that `up` started."""
    pid = _holder()
    if pid is None:
        return _complain("stopping the lab: no lab is up; `make lab` starts one")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while _holder() is not None:
        if time.monotonic() > deadline:
            return _complain(
                f"stopping the lab: process {pid} has not ended within {DOWN_SECONDS:g} s; "
                f"run `kill -9 {pid}`"
            )
        time.sleep(0.05)
    return 0


def fixtures() -> int:
    """Record the fixtures of the unit tests."""
    record()
    return 0


def measure_all(names: list[str]) -> int:
    """Run the named measurements, or all of them."""
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        choices = ", ".join(MEASUREMENTS)
        return _complain(f"unknown measurement {unknown[0]}; choose from {choices}", status=2)
    for name in names or MEASUREMENTS:
        measure(name)
    return 0


def compare_agent(minutes: str) -> int:
    """Compare the agent with timers for some minutes."""
    if not minutes.isdecimal() or int(minutes) == 0:
        return _complain(f"{minutes!r} is not a number of minutes; give one such as 60", status=2)
    agent.compare(int(minutes))
    return 0


def main(arguments: list[str]) -> int:
    """Run a command of the lab and return the exit status."""
    command: Callable[[], int]
    commands = {"build": build, "up": up, "down": down, "fixtures": fixtures, "hold": hold}
    match arguments:
        case ["agent"]:
            command = partial(compare_agent, "60")
        case ["agent", minutes]:
            command = partial(compare_agent, minutes)
        case ["measure", *names]:
            command = partial(measure_all, names)
        case [name] if name in commands:
            command = commands[name]
        case _:
            public = "|".join(name for name in commands if name != "hold")
            return _complain(
                f"usage: python -m lab {public}|measure [NAME...]|agent [MINUTES]", status=2
            )
    if missing := builds.missing():
        # `build` succeeds: without the requirements, the tests skip or (with CI set)
        # fail.
        return _complain(missing, status=0 if command is build else 1)
    try:
        return command()
    except (BuildError, NetworkError, UnmetError, OSError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return 130


def _exit(_number: int, _frame: object) -> None:
    sys.exit(0)


def _guide(lab: Lab) -> str:
    """Write scripts for each node, and return a guide to the lab.

    The scripts are `tailscale`, `inside` and `router` in the directory of the node.
    """
    # The nodes, with their addresses.
    outage = lab.directory / "outage.nft"
    outage.write_text(OUTAGE)
    width = max(map(len, lab.nodes))
    lines = [f"A lab is up, in {lab.directory}:", ""]
    for node in lab.nodes.values():
        _script(node.directory / "tailscale", node.command())
        _script(node.directory / "inside", node.place.inside.command())
        _script(node.directory / "router", node.place.outside.command())
        address = node.status()["TailscaleIPs"][0]
        command = f"{node.directory}/tailscale status"
        lines.append(f"  {node.name:{width}}  {node.place.nat.value:6}  {address}  {command}")
    # Examples, for the first node.
    name = next(iter(lab.nodes))
    here = lab.directory / name
    lines += [
        "",
        "Examples:",
        f"  {here}/tailscale ping bravo",
        f"  tsfc exporter --socket {here}/tailscaled.sock --metrics-path -",
        f"  {here}/inside ip address                             # run a program in its network",
        f"  tail -f {here}/tailscaled.log",
        f"  {here}/router nft -f {outage}   # drop all UDP at its router",
        f"  {here}/router nft delete table ip outage             # pass UDP again",
        "",
        "`make lab-down` stops the lab.",
    ]
    return "\n".join(lines)


def _script(path: Path, command: list[str]) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)


def _pid_file() -> Path:
    return builds.cache_directory() / "up.pid"


def _holder() -> int | None:
    """Return the ID of the process that runs a lab: the one that holds the lock."""
    if not _pid_file().exists():
        return None
    with _pid_file().open("r+") as file:
        if _lock(file):
            return None
        return int(file.read() or 0) or None


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _complain(text: str, *, status: int = 1) -> int:
    print(f"lab: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
