"""A round of pings with the `tailscale` CLI: one process per peer, in batches."""

from __future__ import annotations

import subprocess
import time

from msgspec import Struct

from tsfc.core.keepalive import PAUSE_SECONDS
from tsfc.core.tailscale.ping import ERROR, Ping, PingKind, PingResult
from tsfc.core.tailscale.ping_cli import parse_output
from tsfc.core.text import one_line
from tsfc.shell import program
from tsfc.shell.tailscaled.pings import Round, allow_descriptors, summary
from tsfc.shell.tailscaled.source import Cli

DEFAULT_TIMEOUT_SECONDS = 5.0
"Default timeout of a ping in `tailscale ping` (`cmd/tailscale/cli/ping.go`)."
_SLACK_SECONDS = 5.0
"Extra time for `tailscale ping` to start and to get the status."


MAX_PROCESSES = 64
"""Maximum number of `tailscale ping` that run at the same time.

Each needs 18 MiB (v1.102.3), so all of them need 1 GiB. 256 peers that are all
unreachable take a minute, the timeout of the unit.
"""


async def ping_all(
    source: Cli,
    pings: tuple[Ping, ...],
    *,
    count: int,
    timeout: float,
    kind: PingKind = PingKind.DISCO,
) -> Round:
    """Ping every peer at most `count` times, with a timeout of `timeout` seconds each.

    Returns when all processes have ended; none is left running.
    """
    allow_descriptors(min(len(pings), MAX_PROCESSES))
    command = (
        *source.argv,
        "ping",
        "-c",
        str(count),
        *(() if kind is PingKind.DISCO else ("--tsmp",)),
        *(() if timeout == DEFAULT_TIMEOUT_SECONDS else (f"--timeout={timeout:g}s",)),
    )
    seconds = count * (timeout + PAUSE_SECONDS) + _SLACK_SECONDS
    results: dict[str, tuple[PingResult, ...]] = {}
    errors: list[str] = []
    for first in range(0, len(pings), MAX_PROCESSES):
        batch = pings[first : first + MAX_PROCESSES]
        for ping, output in (await _outputs(command, batch, seconds=seconds)).items():
            results[ping.peer] = (
                (ERROR,) if isinstance(output, _NotStarted) else parse_output(output)
            )
            if results[ping.peer] == (ERROR,):
                errors.append(f"running `{' '.join(command)} {ping.ip}`: {_problem(output)}")
    return Round(results, summary(errors, len(pings)))


class _NotStarted(Struct, frozen=True):
    """A process that could not be started."""

    why: str


async def _outputs(
    command: tuple[str, ...], pings: tuple[Ping, ...], *, seconds: float
) -> dict[Ping, str | _NotStarted]:
    """Run one process per ping, all at the same time, and return what each printed."""
    ping_by_output: dict[int, Ping] = {}
    printed: dict[Ping, str | _NotStarted] = {}
    with program.ended_children() as children:
        # Start all processes.
        for ping in pings:
            try:
                child = program.start((*command, ping.ip), children, stderr=subprocess.STDOUT)
            except OSError as error:
                printed[ping] = _NotStarted(error.strerror or str(error))
                continue
            if child.stdout:
                ping_by_output[child.stdout.fileno()] = ping

        # Wait for them. One that hangs is terminated; the others keep their results.
        outputs, _ = await program.collect(
            tuple(ping_by_output), deadline=time.monotonic() + seconds
        )
    return printed | {
        ping_by_output[descriptor]: output.decode(errors="replace")
        for descriptor, output in outputs.items()
    }


def _problem(output: str | _NotStarted) -> str:
    match output:
        case _NotStarted(why=why):
            return f"{why}; set --tailscale to the path of the program"
        case _:
            return one_line(output[:1200]) or "no output"
