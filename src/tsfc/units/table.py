"""The systemd units of the jobs, as text.

What they are is in `units.json`, one table for both that make units of it: the NixOS modules (`nix/`) and `tsfc units`.
Here is only how it is read. A job's units have the directives of all jobs, then its own, then what its options contribute:
`arguments` to the command line, `directives` to the sections, `tmpfiles` to tmpfiles.d. An option that is null, false or
empty contributes nothing, one that is a list contributes for each of its texts; `{value}` is the value, `{directory}` the
directory that it is in, and everywhere `{job}` and the names of the job's options stand for theirs. A directive that is
a list grows; of one that is not, the last holds.

Directives: systemd.unit(5), systemd.exec(5), systemd.service(5), systemd.timer(5), systemd.socket(5).
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from functools import reduce

import msgspec
from msgspec import Struct, field
from returns.result import Failure, Result, Success

Value = str | int | bool | tuple[str, ...] | None
"What an option is set to."
Section = Mapping[str, str | tuple[str, ...]]
"Directives by name; one that may be given several times is a list, and so is a command line (`ExecStart`)."
Sections = Mapping[str, Section]

NONE: Sections = {}


class Type(Struct, frozen=True, forbid_unknown_fields=True):
    """What a value must look like."""

    is_: str = field(name="is")
    "What the value is, to be said behind `is not`."
    patterns: tuple[str, ...]
    "Regular expressions of the kind that Nix and Python share: the whole value matches each of them."
    hidden: tuple[str, ...] = ()
    "Directories that the sandbox has closed or replaced, so that what the value names cannot be in them."


class Option(Struct, frozen=True, forbid_unknown_fields=True):
    """What can be chosen, and what the choice contributes."""

    type: str
    description: str
    arguments: tuple[str, ...] = ()
    directives: Sections = NONE
    tmpfiles: tuple[str, ...] = ()


class Choice(Struct, frozen=True, forbid_unknown_fields=True):
    """That a job has an option, and what it is where nobody chooses."""

    name: str
    default: Value


class Job(Struct, frozen=True, forbid_unknown_fields=True):
    """What is a job's own."""

    options: tuple[Choice, ...]
    "In the order of their arguments on the command line."
    directives: Sections
    helpers: Mapping[str, Sections] = {}
    "Units beside the service and the timer, by their names."
    by_default: bool = True
    "It is among those that are installed where none is named."


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """`units.json`."""

    types: Mapping[str, Type]
    options: Mapping[str, Option]
    shared: tuple[Choice, ...]
    "The options that all jobs share."
    directives: Sections
    "The directives that all jobs have."
    jobs: Mapping[str, Job]


class Installation(Struct, frozen=True):
    """What there is to be on a host for one job."""

    units: Mapping[str, str]
    "Text by the name of the unit."
    wants: Mapping[str, str]
    "The target that wants a unit, by the name of the unit; of those that are to be enabled."
    tmpfiles: tuple[str, ...]
    "Lines for tmpfiles.d(5)."


_TABLE = msgspec.json.Decoder(Table)


def read_table(raw: bytes) -> Table:
    """Reads `units.json`. It is ours: an error in it is a bug, and an exception."""
    return _TABLE.decode(raw)


def choices(table: Table, job: str) -> tuple[Choice, ...]:
    """Returns the options of a job, the shared ones first."""
    return (*table.shared, *table.jobs[job].options)


def default_jobs(table: Table) -> tuple[str, ...]:
    """Returns the jobs that are meant where none is named."""
    return tuple(name for name, job in table.jobs.items() if job.by_default)


def checked(table: Table, name: str, text: str) -> Result[str, str]:
    """Returns `text` where it can be the value of the option (or one of its list); else fails with what the value has to be."""
    kind = table.types[table.options[name].type]
    if _is_bytes(text) or not all(re.fullmatch(pattern, text) for pattern in kind.patterns):
        return Failure(f"{text!r} is not {kind.is_}")
    hidden = next(
        (directory for directory in kind.hidden if f"{text}/".startswith(f"{directory}/")), None
    )
    if hidden is not None:
        return Failure(
            f"{text!r} is in {hidden}, which the sandbox of the units hides; choose another place"
        )
    return Success(text)


def _is_bytes(text: str) -> bool:
    """Reports whether an argument of the command line was not UTF-8, as unit files are; what was not is there as lone surrogates (PEP 383)."""
    return re.search("[\ud800-\udfff]", text) is not None


def clash(values: Mapping[str, Mapping[str, Value]]) -> str | None:
    """Says which two jobs, of those whose options these are, would write one file; None where each has its own."""
    writers: dict[Value, str] = {}
    for job, chosen in values.items():
        path = chosen.get("metricsPath")
        if path is not None and path in writers:
            return f"{writers[path]} and {job} both write {path}; give each job a file of its own"
        writers[path] = job
    return None


def installation(table: Table, job: str, values: Mapping[str, Value]) -> Installation:
    """Returns the units of a job, all of whose options have a value here."""
    own = table.jobs[job]
    names = {"job": job} | {name: str(value) for name, value in values.items()}
    chosen = [
        (table.options[choice.name], names | _value_names(text))
        for choice in choices(table, job)
        for text in _texts(values[choice.name])
    ]
    sections = reduce(
        _merged,
        (
            _filled(table.directives, names),
            _filled(own.directives, names),
            *(_contributed(*choice) for choice in chosen),
        ),
    )
    units = {
        f"tailscale-{job}.service": {section: sections[section] for section in ("Unit", "Service")},
        f"tailscale-{job}.timer": {"Unit": {"Description": sections["Unit"]["Description"]}}
        | {section: sections[section] for section in ("Timer", "Install")},
    } | {name: _filled(helper, names) for name, helper in own.helpers.items()}
    return Installation(
        units={name: _text(unit) for name, unit in units.items()},
        wants={
            name: str(unit["Install"]["WantedBy"])
            for name, unit in units.items()
            if "Install" in unit
        },
        tmpfiles=tuple(_fill(line, names) for option, names in chosen for line in option.tmpfiles),
    )


def _texts(value: Value) -> tuple[str, ...]:
    if value is None or value is False:
        return ()
    return value if isinstance(value, tuple) else (str(value),)


def _value_names(text: str) -> dict[str, str]:
    return {"value": text, "directory": posixpath.dirname(text)}


def _contributed(option: Option, names: Mapping[str, str]) -> Sections:
    return _filled(_merged(option.directives, {"Service": {"ExecStart": option.arguments}}), names)


def _merged(first: Sections, second: Sections) -> Sections:
    return {
        **first,
        **{
            section: _merged_section(first.get(section, {}), directives)
            for section, directives in second.items()
        },
    }


def _merged_section(first: Section, second: Section) -> Section:
    def grown(name: str, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        before = first.get(name)
        return (
            (*before, *value) if isinstance(before, tuple) and isinstance(value, tuple) else value
        )

    return {**first, **{name: grown(name, value) for name, value in second.items()}}


def _filled(sections: Sections, names: Mapping[str, str]) -> Sections:
    def filled(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return (
            _fill(value, names)
            if isinstance(value, str)
            else tuple(_fill(text, names) for text in value)
        )

    return {
        section: {name: filled(value) for name, value in directives.items()}
        for section, directives in sections.items()
    }


def _fill(text: str, names: Mapping[str, str]) -> str:
    """Puts each name's text in the place of the name in braces; in one pass, so that braces in such a text stay what they are."""
    return re.sub(r"\{(\w+)\}", lambda found: names.get(found[1], found[0]), text)


def _text(unit: Sections) -> str:
    return (
        "\n\n".join(
            "\n".join((f"[{section}]", *_lines(directives))) for section, directives in unit.items()
        )
        + "\n"
    )


def _lines(directives: Section) -> Iterable[str]:
    for name, value in directives.items():
        if name == "ExecStart":
            yield f"{name}={' '.join(_escaped(argument) for argument in value)}"
        else:
            yield from (
                f"{name}={text}" for text in ((value,) if isinstance(value, str) else value)
            )


def _escaped(argument: str) -> str:
    """Quotes an argument for `ExecStart`, as `utils.escapeSystemdExecArg` of nixpkgs does: JSON's escapes are C's, and those are systemd's."""
    return json.dumps(argument, ensure_ascii=False).replace("%", "%%").replace("$", "$$")
