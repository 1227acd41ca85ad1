"""Measure the CPU time that each sandbox directive adds to the start of a service.

Run as root: `PYTHONPATH=tests .venv/bin/python tools/sandbox_costs.py [UNIT_FILE...]`.

It starts `/bin/true` with each directive in a machine of its own
(`tests/support/booted.py`) and measures the CPU time of the whole machine without
`systemctl`: PID 1, the journal, and the new process before its first instruction.
With unit files it measures these instead, and with `--each` also their directives.

The host is shared and noisy. So all units are measured in many rounds in random order,
and each result is the median of the differences within a round.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.booted import UNITS, Machine, booted, unbootable

DENIED = "~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap"
BASE = ("ProtectSystem=strict", "NoNewPrivileges=yes")
"Second baseline. Most directives need a mount namespace; the first one pays for it."
TRIALS = (
    BASE,
    ("ProtectSystem=strict",),
    ("ProtectHome=yes",),
    ("ProtectHome=tmpfs",),
    ("PrivateTmp=yes",),
    ("PrivateDevices=yes",),
    ("PrivateNetwork=yes",),
    ("PrivateUsers=yes",),
    ("PrivateIPC=yes",),
    ("PrivateMounts=yes",),
    ("ProtectKernelTunables=yes",),
    ("ProtectKernelModules=yes",),
    ("ProtectKernelLogs=yes",),
    ("ProtectControlGroups=yes",),
    ("ProtectClock=yes",),
    ("ProtectHostname=yes",),
    ("ProtectProc=invisible",),
    ("ProcSubset=pid",),
    ("ProtectProc=invisible", "ProcSubset=pid"),
    ("NoNewPrivileges=yes",),
    ("RestrictAddressFamilies=AF_UNIX",),
    ("RestrictNamespaces=yes",),
    ("RestrictRealtime=yes",),
    ("RestrictSUIDSGID=yes",),
    ("LockPersonality=yes",),
    ("MemoryDenyWriteExecute=yes",),
    ("SystemCallArchitectures=native",),
    ("SystemCallFilter=@system-service",),
    ("SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources"),
    (f"SystemCallFilter={DENIED} @privileged @resources",),
    (f"SystemCallFilter={DENIED}",),
    ("SystemCallArchitectures=native", "SystemCallFilter=@system-service"),
    (
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
    ),
    ("SystemCallArchitectures=native", f"SystemCallFilter={DENIED} @privileged @resources"),
    ("SystemCallArchitectures=native", f"SystemCallFilter={DENIED}"),
    ("DynamicUser=yes",),
    ("User=nobody",),
    ("CapabilityBoundingSet=",),
    ("CapabilityBoundingSet=CAP_DAC_OVERRIDE",),
    ("DynamicUser=yes", "AmbientCapabilities=CAP_DAC_OVERRIDE"),
    ("TemporaryFileSystem=/run:ro",),
    ("TemporaryFileSystem=/run:ro", "BindReadOnlyPaths=-/run/systemd/journal"),
    ("TemporaryFileSystem=/var:ro",),
    ("TemporaryFileSystem=/run:ro /var:ro", "BindPaths=/var/lib/alloy"),
    ("TemporaryFileSystem=/:ro", "BindReadOnlyPaths=/usr /lib /lib64 /bin /etc /opt"),
    ("InaccessiblePaths=/sys",),
    ("ReadOnlyPaths=/sys",),
    ("ReadOnlyPaths=/proc",),
    ("DevicePolicy=closed",),
    ("IPAddressDeny=any",),
    ("UMask=0022",),
    ("KeyringMode=private",),
    ("RemoveIPC=yes",),
    ("StateDirectory=tailscale-watchdog",),
    ("LogLevelMax=notice",),
)
NEEDED = ("/run/tailscale", "/var/lib/alloy")
"Directories in the directives of the trials and of the units."
STARTS, ROUNDS = 10, 11
REFERENCES = 4
"Measurements of each reference unit per round."


@dataclass
class Unit:
    """A service under test."""

    name: str
    directives: tuple[str, ...]
    costs: list[float] = field(default_factory=list[float])
    "CPU time of a start in each round, in ms."

    def text(self) -> str:
        """Return the unit file."""
        return "\n".join(
            (
                "[Unit]",
                "StartLimitIntervalSec=0",
                "[Service]",
                *self.directives,
                "Type=oneshot",
                "ExecStart=/bin/true",
                "",
            )
        )


class CompleteUnit:
    """The service in a unit file, and copies that each lack one of its directives."""

    def __init__(self, path: Path, number: int, *, with_parts: bool) -> None:
        directives = service_section(path.read_text())
        self.path = path
        self.unit = Unit(f"whole-{number}.service", directives)
        self.parts = {
            directive: Unit(
                f"part-{number}-{index}.service", directives[:index] + directives[index + 1 :]
            )
            for index, directive in enumerate(directives)
            if with_parts
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Measure the cost of sandbox directives.")
    parser.add_argument(
        "unit_files",
        metavar="UNIT_FILE",
        nargs="*",
        type=Path,
        help="service to measure instead of the single directives",
    )
    parser.add_argument(
        "--each",
        action="store_true",
        help="also measure each UNIT_FILE without each of its directives",
    )
    parser.add_argument(
        "--starts",
        type=int,
        default=STARTS,
        help="starts of a unit per round (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="number of rounds (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if reason := unbootable():
        sys.exit(reason)
    bare, base = Unit("bare.service", ()), Unit("base.service", BASE)
    if options.unit_files:
        wholes = [
            CompleteUnit(path, number, with_parts=options.each)
            for number, path in enumerate(options.unit_files)
        ]
        parts = [part for whole in wholes for part in whole.parts.values()]
        exposures = measure(
            [bare, *(whole.unit for whole in wholes)],
            parts,
            starts=options.starts,
            rounds=options.rounds,
        )
        print_wholes(bare, wholes, exposures)
    else:
        alone = [Unit(f"alone-{number}.service", trial) for number, trial in enumerate(TRIALS)]
        on_top = [
            Unit(f"on-top-{number}.service", BASE + trial) for number, trial in enumerate(TRIALS)
        ]
        exposures = measure(
            [bare, base], alone + on_top, starts=options.starts, rounds=options.rounds
        )
        print_trials(bare, base, list(zip(alone, on_top, strict=True)), exposures)


def service_section(text: str) -> tuple[str, ...]:
    """Return the directives in [Service] but Exec*, Type, Restart* and Standard*."""
    lines = [line.strip() for line in re.sub(r"\\\n", " ", text).splitlines()]
    section, found = "", list[str]()
    for line in lines:
        if line.startswith("["):
            section = line
        elif (
            section == "[Service]"
            and line
            and line[0] not in "#;"
            and not re.match(r"Exec|Type *=|Restart|RemainAfterExit|Standard", line)
        ):
            found.append(line)
    return tuple(found)


def measure(
    references: list[Unit], units: Sequence[Unit], *, starts: int, rounds: int
) -> dict[str, float]:
    """Measure the costs of the units that start, and return their exposures by name."""
    files = {f"{UNITS}/{unit.name}": unit.text() for unit in (*references, *units)}
    with booted(files=files) as machine:
        machine.run("mkdir", "-p", *NEEDED)
        if not all(starts_at_all(machine, unit) for unit in references):
            sys.exit("a reference unit does not start")
        startable = [unit for unit in units if starts_at_all(machine, unit)]
        for number in range(rounds):
            turns = [*startable, *references * REFERENCES]
            random.shuffle(turns)
            times: dict[str, list[float]] = {}
            for unit in turns:
                times.setdefault(unit.name, []).append(
                    milliseconds_per_start(machine, unit, starts)
                )
            for unit in (*startable, *references):
                unit.costs.append(statistics.median(times[unit.name]))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
        analysis = machine.run(
            "systemd-analyze",
            "security",
            "--no-pager",
            *(unit.name for unit in (*references, *startable)),
        ).stdout
    return {
        name: float(exposure)
        for name, exposure in re.findall(r"Overall exposure level for (\S+): ([0-9.]+)", analysis)
    }


def starts_at_all(machine: Machine, unit: Unit) -> bool:
    """Start a unit once and return whether it succeeded."""
    succeeded = machine.run("systemctl", "start", unit.name, check=False).status == 0
    if not succeeded:
        print(
            f"{unit.text()}does not start: {' '.join(machine.journal(f'--unit={unit.name}'))}\n",
            file=sys.stderr,
        )
    return succeeded


def milliseconds_per_start(machine: Machine, unit: Unit, starts: int) -> float:
    """Start a unit several times and return the CPU time per start, in ms."""
    before = machine.cpu_seconds()
    machine.run(
        "sh",
        "-euc",
        'for _ in $(seq "$2"); do systemctl start "$1"; done',
        "sh",
        unit.name,
        str(starts),
    )
    return (machine.cpu_seconds() - before) * 1000 / starts


def added_cost(unit: Unit, reference: Unit) -> str:
    """Return the cost above the reference: median ± half the interquartile range."""
    if not unit.costs or not reference.costs:
        return "does not start"
    differences = [
        cost - baseline for cost, baseline in zip(unit.costs, reference.costs, strict=True)
    ]
    if len(differences) == 1:
        return f"{differences[0]:+.2f}"
    low, middle, high = statistics.quantiles(differences, n=4, method="inclusive")
    return f"{middle:+.2f} ± {(high - low) / 2:.2f}"


def removed_exposure(unit: Unit, reference: Unit, exposures: Mapping[str, float]) -> str:
    """Return how much lower the exposure of a unit is than that of the reference."""
    return (
        f"{exposures[reference.name] - exposures[unit.name]:.1f}"
        if unit.costs and reference.costs
        else ""
    )


def print_trials(
    bare: Unit, base: Unit, pairs: Sequence[tuple[Unit, Unit]], exposures: Mapping[str, float]
) -> None:
    """Print a row for each set of directives."""
    print(
        f"A start without directives takes {statistics.median(bare.costs):.2f} ms of CPU time; "
        f"its exposure is {exposures[bare.name]}."
    )
    print(f"`{'` `'.join(BASE)}` adds {added_cost(base, bare)} ms.\n")
    print("| directives | ms alone | ms on top of these | exposure removed |\n|---|---|---|---|")
    for alone, on_top in pairs:
        print(
            f"| `{'` `'.join(alone.directives)}` | {added_cost(alone, bare)} "
            f"| {added_cost(on_top, base)} | {removed_exposure(alone, bare, exposures)} |"
        )


def print_wholes(
    bare: Unit, wholes: Sequence[CompleteUnit], exposures: Mapping[str, float]
) -> None:
    """Print the cost of each unit file and of its directives."""
    print(
        f"A start without directives takes {statistics.median(bare.costs):.2f} ms of CPU time; "
        f"its exposure is {exposures[bare.name]}.\n"
    )
    print("| unit or directive | ms added | exposure removed |\n|---|---|---|")
    for whole in wholes:
        print(
            f"| **{whole.path}** | {added_cost(whole.unit, bare)} "
            f"| {removed_exposure(whole.unit, bare, exposures)} |"
        )
        for directive, part in whole.parts.items():
            print(
                f"| `{directive}` | {added_cost(whole.unit, part)} "
                f"| {removed_exposure(whole.unit, part, exposures)} |"
            )


if __name__ == "__main__":
    main()
