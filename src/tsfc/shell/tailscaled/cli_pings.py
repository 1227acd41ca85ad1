"""A round of pings with the `tailscale` CLI: one concurrent process per peer."""

from __future__ import annotations

import subprocess
import time

from tsfc.core.keepalive import PAUSE_SECONDS
from tsfc.core.tailscale.ping import ERROR, Ping, PingResult
from tsfc.core.tailscale.ping_cli import parse_output
from tsfc.core.text import one_line
from tsfc.shell import program
from tsfc.shell.tailscaled.pings import Round, allow_descriptors, summary
from tsfc.shell.tailscaled.source import Cli

DEFAULT_TIMEOUT_SECONDS = 5.0
"Default timeout of a ping in `tailscale ping` (`cmd/tailscale/cli/ping.go`)."
_SLACK_SECONDS = 5.0
"Extra time for `tailscale ping` to start and to get the status."


def ping_all(source: Cli, pings: tuple[Ping, ...], *, count: int, timeout: float) -> Round:
    """Ping every peer at most `count` times, with a timeout of `timeout` seconds each.

    Returns when all processes have ended; none is left running.
    """
    allow_descriptors(len(pings))
    command = (
        *source.argv,
        "ping",
        "-c",
        str(count),
        *(() if timeout == DEFAULT_TIMEOUT_SECONDS else (f"--timeout={timeout:g}s",)),
    )
    children: list[subprocess.Popen[bytes]] = []
    ping_by_output: dict[int, Ping] = {}
    results: dict[str, tuple[PingResult, ...]] = {}
    errors: list[str] = []
    try:
        # Start all processes.
        for ping in pings:
            try:
                child = program.start((*command, ping.ip), children, stderr=subprocess.STDOUT)
            except OSError as error:
                results[ping.peer] = (ERROR,)
                errors.append(
                    f"running `{' '.join(command)} {ping.ip}`: {error.strerror}; "
                    "set --tailscale to the path of the program"
                )
                continue
            if child.stdout:
                ping_by_output[child.stdout.fileno()] = ping

        # Wait for them. One that hangs is terminated; the others keep their results.
        deadline = time.monotonic() + count * (timeout + PAUSE_SECONDS) + _SLACK_SECONDS
        outputs, _ = program.collect(tuple(ping_by_output), deadline=deadline)
    finally:
        program.end_all(children)

    # Read the results from what they printed.
    for descriptor, output in outputs.items():
        ping, text = ping_by_output[descriptor], output.decode(errors="replace")
        results[ping.peer] = parse_output(text)
        if results[ping.peer] == (ERROR,):
            errors.append(
                f"running `{' '.join(command)} {ping.ip}`: {one_line(text[:1200]) or 'no output'}"
            )
    return Round(results, summary(errors, len(pings)))
