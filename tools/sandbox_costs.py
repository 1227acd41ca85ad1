"""What each sandbox directive costs a service: the CPU time of a start, on a machine that is booted for it (`tests/support/booted.py`).

`PYTHONPATH=tests .venv/bin/python tools/sandbox_costs.py [UNIT_FILE...]`, as root. It starts `/bin/true` with each directive and counts the CPU time
of the whole machine, without the `systemctl` that asks for it: what PID 1, the journal and the new process do before its first instruction.
With unit files it measures these instead, as wholes; with `--each`, too, what each of their directives adds to the others.

The real machine is shared and noisy, so all units take turns, in many rounds, and each figure is the median of the differences within a round.
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
"What the directives are measured on top of, too: most imply a mount namespace, and the first that does pays for it."
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
"Directories that the trials and our units name."
STARTS, ROUNDS = 10, 11
REFERENCES = 4
"How often the units that the others are compared with are measured in a round."


@dataclass
class Unit:
    """A service under test, and what a start of it took in each round, in ms."""

    name: str
    directives: tuple[str, ...]
    costs: list[float] = field(default_factory=list[float])

    def text(self) -> str:
        """Returns the unit file."""
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


class Whole:
    """A unit file's service, and what remains of it without each of its directives."""

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
    """Measures, and prints a Markdown table."""
    parser = argparse.ArgumentParser(description="What sandbox directives cost a service's start.")
    parser.add_argument(
        "unit_files",
        metavar="UNIT_FILE",
        nargs="*",
        type=Path,
        help="a service to be measured as a whole, instead of the directives",
    )
    parser.add_argument(
        "--each",
        action="store_true",
        help="measure each UNIT_FILE without each of its directives, too",
    )
    parser.add_argument(
        "--starts", type=int, default=STARTS, help="starts of a unit in a round (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds (%(default)s)")
    options = parser.parse_args(arguments)
    if reason := unbootable():
        sys.exit(reason)
    bare, base = Unit("bare.service", ()), Unit("base.service", BASE)
    if options.unit_files:
        wholes = [
            Whole(path, number, with_parts=options.each)
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
    """Returns what a unit file has in its section [Service], without what it executes, how that is waited for, and its streams."""
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
    """Fills in the units' costs, leaves those without that do not start, and returns the exposure of each by its name."""
    files = {f"{UNITS}/{unit.name}": unit.text() for unit in (*references, *units)}
    with booted(files=files) as machine:
        machine.run("mkdir", "-p", *NEEDED)
        if not all(starts_at_all(machine, unit) for unit in references):
            sys.exit("without that there is nothing to compare with")
        able = [unit for unit in units if starts_at_all(machine, unit)]
        for number in range(rounds):
            turns = [*able, *references * REFERENCES]
            random.shuffle(turns)
            taken: dict[str, list[float]] = {}
            for unit in turns:
                taken.setdefault(unit.name, []).append(
                    milliseconds_per_start(machine, unit, starts)
                )
            for unit in (*able, *references):
                unit.costs.append(statistics.median(taken[unit.name]))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
        said = machine.run(
            "systemd-analyze",
            "security",
            "--no-pager",
            *(unit.name for unit in (*references, *able)),
        ).stdout
    return {
        name: float(exposure)
        for name, exposure in re.findall(r"Overall exposure level for (\S+): ([0-9.]+)", said)
    }


def starts_at_all(machine: Machine, unit: Unit) -> bool:
    """Starts a unit once, and reports whether that went well."""
    went_well = machine.run("systemctl", "start", unit.name, check=False).status == 0
    if not went_well:
        print(
            f"{unit.text()}does not start: {' '.join(machine.journal(f'--unit={unit.name}'))}\n",
            file=sys.stderr,
        )
    return went_well


def milliseconds_per_start(machine: Machine, unit: Unit, starts: int) -> float:
    """Starts a unit so many times, one after the other, and returns the CPU time that one start took."""
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


def beyond(unit: Unit, reference: Unit) -> str:
    """Says what a unit costs more than another: the median, and half of the distance between the quartiles."""
    if not unit.costs or not reference.costs:
        return "does not start"
    differences = [ours - theirs for ours, theirs in zip(unit.costs, reference.costs, strict=True)]
    if len(differences) == 1:
        return f"{differences[0]:+.2f}"
    low, middle, high = statistics.quantiles(differences, n=4, method="inclusive")
    return f"{middle:+.2f} ± {(high - low) / 2:.2f}"


def removed(unit: Unit, reference: Unit, exposures: Mapping[str, float]) -> str:
    """Says how much of the exposure that `systemd-analyze security` sees a unit has less than another."""
    return (
        f"{exposures[reference.name] - exposures[unit.name]:.1f}"
        if unit.costs and reference.costs
        else ""
    )


def print_trials(
    bare: Unit, base: Unit, pairs: Sequence[tuple[Unit, Unit]], exposures: Mapping[str, float]
) -> None:
    """Prints a row for each set of directives."""
    print(
        f"A start without any takes {statistics.median(bare.costs):.2f} ms of CPU and has an exposure of {exposures[bare.name]}; one with"
    )
    print(f"`{'` `'.join(BASE)}` takes {beyond(base, bare)} ms more.\n")
    print("| directives | ms alone | ms on top of that | exposure removed |\n|---|---|---|---|")
    for alone, on_top in pairs:
        print(
            f"| `{'` `'.join(alone.directives)}` | {beyond(alone, bare)} | {beyond(on_top, base)} | {removed(alone, bare, exposures)} |"
        )


def print_wholes(bare: Unit, wholes: Sequence[Whole], exposures: Mapping[str, float]) -> None:
    """Prints a row for each unit file, and for each directive how much less it is without."""
    print(
        f"A start without any directive takes {statistics.median(bare.costs):.2f} ms of CPU and has an exposure of {exposures[bare.name]}.\n"
    )
    print("| unit or directive | ms added | exposure removed |\n|---|---|---|")
    for whole in wholes:
        print(
            f"| **{whole.path}** | {beyond(whole.unit, bare)} | {removed(whole.unit, bare, exposures)} |"
        )
        for directive, part in whole.parts.items():
            print(
                f"| `{directive}` | {beyond(whole.unit, part)} | {removed(whole.unit, part, exposures)} |"
            )


if __name__ == "__main__":
    main()
