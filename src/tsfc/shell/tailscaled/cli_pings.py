"""A round of pings by the `tailscale` program: a process for each peer, all at once."""

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
"For one ping, where `tailscale ping` is not told otherwise (`cmd/tailscale/cli/ping.go`)."
_SLACK_SECONDS = 5.0
"What a `tailscale ping` may take beyond its pings, to start and to ask for the status."


def ping_all(source: Cli, pings: tuple[Ping, ...], *, count: int, timeout: float) -> Round:
    """Pings every peer at most `count` times, `timeout` seconds each, and returns when all have ended; no child outlives it."""
    allow_descriptors(len(pings))
    command = (
        *source.argv,
        "ping",
        "-c",
        str(count),
        *(() if timeout == DEFAULT_TIMEOUT_SECONDS else (f"--timeout={timeout:g}s",)),
    )
    children: list[subprocess.Popen[bytes]] = []
    answers: dict[str, tuple[PingResult, ...]] = {}
    complaints: list[str] = []
    outputs: dict[int, Ping] = {}
    try:
        for ping in pings:
            try:
                child = program.start((*command, ping.ip), children, stderr=subprocess.STDOUT)
            except OSError as error:
                answers[ping.peer] = (ERROR,)
                complaints.append(
                    f"running `{' '.join(command)} {ping.ip}`: {error.strerror}; give --tailscale the path of the program"
                )
                continue
            if child.stdout:
                outputs[child.stdout.fileno()] = ping
        deadline = time.monotonic() + count * (timeout + PAUSE_SECONDS) + _SLACK_SECONDS
        printed, _ = program.collect(tuple(outputs), deadline=deadline)
    finally:
        program.end_all(children)
    for descriptor, output in printed.items():
        ping, said = outputs[descriptor], output.decode(errors="replace")
        answers[ping.peer] = parse_output(said)
        if answers[ping.peer] == (ERROR,):
            complaints.append(
                f"running `{' '.join(command)} {ping.ip}`: {one_line(said[:1200]) or 'it said nothing'}"
            )
    return Round(answers, summary(complaints, len(pings)))
