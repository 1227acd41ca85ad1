"""The lab by hand: `make lab`, `make lab-down`, `make fixtures` and `make measure` are `python -m lab up`, `down`, `fixtures` and `measure`."""

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

from lab import NAT, Lab, builds
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
    """Builds all programs that are not built yet."""
    builds.server()
    for version in (builds.NEWEST, builds.OLDEST):
        builds.tailscale(version)
    return 0


def up() -> int:
    """Brings a lab up that stays when this program ends, and says how to look around in it."""
    # Here, where it is seen, and not in the process in the background.
    builds.server()
    builds.tailscale(builds.NEWEST)
    if _holder() is not None:
        return _complain("bringing a lab up: there is one already; `make lab-down` ends it")
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "hold"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    try:
        said = process.stdout.read()  # until it is up, or has ended
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if not said:
        return process.wait()
    print(said, end="")
    return 0


def hold() -> int:
    """Is the process in the background: has a lab until it is told to end."""
    signal.signal(signal.SIGTERM, _end)
    with _pid_file().open("a+") as held:
        if not _can_be_locked(held):
            return _complain("bringing a lab up: another one is coming up")
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        with Lab(NODES) as lab:
            print(_guide(lab), flush=True)
            for stream in (sys.stdout, sys.stderr):  # whoever reads them sees that no more is said
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            # Not pause(): a signal that comes just before it would be noted, and wake nobody.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            signal.sigwait({signal.SIGTERM})
    return 0


def down() -> int:
    """Ends the lab that `up` has left."""
    pid = _holder()
    if pid is None:
        return _complain("taking the lab down: there is none; `make lab` brings one up")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while _holder() is not None:
        if time.monotonic() > deadline:
            return _complain(
                f"taking the lab down: process {pid} has not ended in {DOWN_SECONDS:g} s; `kill -9 {pid}` ends all that is in it"
            )
        time.sleep(0.05)
    return 0


def fixtures() -> int:
    """Records the fixtures of the unit tests."""
    record()
    return 0


def measure_all(names: list[str]) -> int:
    """Measures what is named; without names, all there is."""
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        return (
            _complain(
                f"measuring {unknown[0]}: there is no such measurement; there are {', '.join(MEASUREMENTS)}"
            )
            + 1
        )
    for name in names or MEASUREMENTS:
        measure(name)
    return 0


def main(arguments: list[str]) -> int:
    """Does what the first argument says."""
    command: Callable[[], int]
    commands = {"build": build, "up": up, "down": down, "fixtures": fixtures, "hold": hold}
    match arguments:
        case ["measure", *names]:
            command = partial(measure_all, names)
        case [name] if name in commands:
            command = commands[name]
        case _:
            return (
                _complain(
                    f"usage: python -m lab {'|'.join(name for name in commands if name != 'hold')}|measure [WHAT...]"
                )
                + 1
            )
    if missing := builds.missing():
        # Nothing to build is no fault; the tests that want it then say that they were skipped, or fail.
        return _complain(missing) and int(command is not build)
    try:
        return command()
    except (BuildError, NetworkError, UnmetError, OSError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        return 130


def _end(_number: int, _frame: object) -> None:
    sys.exit(0)


def _guide(lab: Lab) -> str:
    """Returns how to look around, and writes the programs for that: for each node `tailscale`, `inside` and `router`."""
    outage = lab.directory / "outage.nft"
    outage.write_text(OUTAGE)
    width = max(map(len, lab.nodes))
    lines = [f"A lab is up, in {lab.directory}:", ""]
    for node in lab.nodes.values():
        _script(node.directory / "tailscale", node.command())
        _script(node.directory / "inside", node.place.inside.command())
        _script(node.directory / "router", node.place.outside.command())
        address = node.status()["TailscaleIPs"][0]
        lines.append(
            f"  {node.name:{width}}  {node.place.nat.value:6}  {address}  {lab.directory}/{node.name}/tailscale status"
        )
    name = next(iter(lab.nodes))
    here = lab.directory / name
    lines += [
        "",
        "Look around:",
        f"  {here}/tailscale ping bravo",
        f"  tsfc exporter --socket {here}/tailscaled.sock --metrics-path -",
        f"  {here}/inside ip address                             # a program in the node's network",
        f"  tail -f {here}/tailscaled.log",
        f"  {here}/router nft -f {outage}   # drop all UDP at the node's router",
        f"  {here}/router nft delete table ip outage             # and let it through again",
        "",
        "`make lab-down` ends it.",
    ]
    return "\n".join(lines)


def _script(path: Path, command: list[str]) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)


def _pid_file() -> Path:
    return builds.cache_directory() / "up.pid"


def _holder() -> int | None:
    """Returns the process that has the lab which is up: the one that holds the lock, whatever the file says."""
    if not _pid_file().exists():
        return None
    with _pid_file().open("r+") as held:
        if _can_be_locked(held):
            return None
        return int(held.read() or 0) or None


def _can_be_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _complain(text: str) -> int:
    print(f"lab: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
