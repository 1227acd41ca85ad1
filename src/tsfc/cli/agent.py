"""The command agent."""

from __future__ import annotations

import os
import socket
from argparse import ArgumentParser, Namespace
from functools import partial

from returns.result import Failure, Success

from tsfc.cli import jobs, values
from tsfc.cli.common import Command, add_label, add_socket, add_timeout
from tsfc.shell import defaults

INTERVALS = {"exporter": 30.0, "native-metrics": 15.0, "keepalive": 10.0, "watchdog": 60.0}
"Seconds between two runs of each job, as in the units."
STATUS_AGES = {"exporter": 0.0, "native-metrics": None, "keepalive": 31.0, "watchdog": 0.0}
"""Age in seconds of the oldest status that is good enough for each job.

Whom keepalive has to ping, the status of the last run of exporter tells.
"""
FILES = {
    "exporter": os.path.basename(defaults.EXPORTER_PATH),
    "native-metrics": os.path.basename(defaults.NATIVE_METRICS_PATH),
    "watchdog": os.path.basename(defaults.WATCHDOG_PATH),
}
"Metrics files of the jobs that have one by default."
AGENT_FILE = os.path.basename(defaults.AGENT_PATH)


def _add_agent(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--jobs",
        type=values.names(tuple(INTERVALS), f"a list of {', '.join(INTERVALS)}, each once"),
        default=tuple(INTERVALS),
        metavar="JOB,…",
        help=f"jobs to run (default: {','.join(INTERVALS)})",
    )
    parser.add_argument(
        "--metrics-dir",
        default=os.path.dirname(defaults.EXPORTER_PATH),
        metavar="DIR",
        help="directory for the metrics of all jobs (default: %(default)s)",
    )
    parser.add_argument(
        "--state-dir",
        default=defaults.STATE_DIR,
        metavar="DIR",
        help="directory of the watchdog's state (default: %(default)s)",
    )
    parser.add_argument(
        "--metrics-path",
        metavar="PATH",
        help=f"file for the metrics of the agent itself (default: {AGENT_FILE} in --metrics-dir)",
    )
    parser.add_argument(
        "--instance",
        type=values.instance,
        metavar="NAME",
        help="mark the lines of the jobs in the journal as tailscale-JOB-NAME",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="let the watchdog print its decisions, but save no state and restart nothing",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="answer HTTP requests on IP:PORT, on the path of a Unix socket, or on the socket that "
        "systemd passes (`systemd`); the IP must be loopback or one of Tailscale's",
    )
    parser.add_argument(
        "--listen-anywhere", action="store_true", help="listen on any other IP address, too"
    )
    for job, interval in INTERVALS.items():
        group = parser.add_argument_group(job)
        group.add_argument(
            f"--{job}-interval",
            type=values.interval,
            default=interval,
            metavar="SPAN",
            help=f"time between the starts of two runs (default: {interval:g}s)",
        )
        group.add_argument(
            f"--{job}-args",
            type=values.arguments,
            default=[],
            metavar="ARGUMENTS",
            help=f"options of `tsfc {job}`, as in a shell",
        )
        if job == "keepalive":
            group.add_argument(
                "--adaptive-keepalive",
                action="store_true",
                help="ping a peer again only before tailscaled gives up its direct path, instead "
                "of in each run",
            )
    source = parser.add_argument_group("source")
    add_socket(source)
    source.add_argument(
        "--tailscale",
        metavar="PROGRAM",
        help="path of the `tailscale` CLI, which is used if the socket is unavailable "
        "(default: search $PATH)",
    )
    add_timeout(source)
    add_label(parser)
    parser.set_defaults(parser_type=type(parser), usage_error=parser.error)


def _agent(options: Namespace) -> int:
    from tsfc.agent.agent import AGENT, Agent, AgentJob
    from tsfc.agent.http import FROM_SYSTEMD, listen
    from tsfc.shell.console import print_error
    from tsfc.shell.system import System
    from tsfc.shell.tailscaled.observe import RunOptions

    own = RunOptions(
        socket=options.socket,
        tailscale=options.tailscale,
        timeout=options.timeout,
        metrics_path=options.metrics_path or os.path.join(options.metrics_dir, AGENT_FILE),
        labels=options.label,
    )
    found: list[AgentJob] = []
    for job in options.jobs:
        of_job = job_options(job, options)
        surroundings = jobs.system(job, of_job)
        if isinstance(surroundings, Failure):
            options.usage_error(f"{job}: {surroundings.failure()} in --{job}-args")
        found.append(
            AgentJob(
                surroundings.unwrap(),
                getattr(options, f"{job}_interval".replace("-", "_")),
                partial(jobs.RUNS[job], of_job),
                STATUS_AGES[job],
                None if surroundings.unwrap().is_dry_run else getattr(of_job, "state_dir", None),
            )
        )
    listener: socket.socket | None = None
    if options.listen is not None:
        suffix = "" if options.instance is None else f"-{options.instance}"
        unit = f"tailscale-agent{suffix}.socket"
        listening = listen(options.listen, anywhere=options.listen_anywhere, unit=unit)
        if isinstance(listening, Success):
            listener = listening.unwrap()
        elif options.listen == FROM_SYSTEMD:
            # Nobody may be watching, and the watchdog matters more than its page.
            print_error(AGENT, f"{listening.failure()}. The jobs run without HTTP")
        else:
            print_error(AGENT, listening.failure())
            return 1
    agent = Agent(
        found,
        System(AGENT, own),
        listener,
        options.instance,
        is_adaptive=options.adaptive_keepalive,
    )
    return agent.run()


def job_options(job: str, options: Namespace) -> Namespace:
    """Return the options of a job: those that the agent gives to all, and its own."""
    argv = ["--timeout", f"{options.timeout:.6f}"]
    if options.socket is not None:
        argv += ["--socket", options.socket]
    if options.tailscale is not None:
        argv += ["--tailscale", options.tailscale]
    argv += [f"--label={name}={value}" for name, value in options.label.items()]
    if job in FILES and not (job == "watchdog" and options.dry_run):
        argv += ["--metrics-path", os.path.join(options.metrics_dir, FILES[job])]
    if job == "watchdog":
        argv += ["--state-dir", options.state_dir, *(["--dry-run"] if options.dry_run else [])]
    parser: ArgumentParser = options.parser_type(prog=f"tsfc {job}", allow_abbrev=False)
    jobs.COMMANDS[job].add_options(parser)
    argv += getattr(options, f"{job}_args".replace("-", "_"))
    parsed = parser.parse_args(argv)
    for name in ("now", "status_file", "metrics_file"):
        if getattr(parsed, name) is not None:
            parser.error(f"--{name.replace('_', '-')} is for a single run, not for the agent")
    if parsed.socket != options.socket:
        parser.error("--socket is the same for all jobs of an agent: give it to the agent")
    return parsed


COMMANDS = {
    "agent": Command(
        "Run all jobs in one process",
        _add_agent,
        _agent,
        "agent.md",
        {
            "tsfc agent --dry-run": "run all jobs, and restart nothing",
            "tsfc agent --jobs exporter,keepalive --listen 127.0.0.1:9199": "run two jobs, and "
            "serve their metrics and a live page over HTTP",
        },
    )
}
