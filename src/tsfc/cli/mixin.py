"""The command mixin."""

from __future__ import annotations

import os
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from returns.result import Failure

from tsfc.cli.common import Command
from tsfc.core.text import PATH_LIMIT, counted, printable
from tsfc.mixin import selector
from tsfc.mixin.documents import KINDS, documents
from tsfc.shell import signals
from tsfc.shell.atomic import atomic_write, temporary_path, write_all
from tsfc.shell.console import STDOUT, print_error, say, write_out


def _add_mixin(parser: ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        nargs="?",
        choices=KINDS,
        metavar="KIND",
        help="rules: recording rules, which the alerts need; alerts; dashboard: JSON for Grafana; "
        "runbooks: one page for each alert; examples: configurations of collectors, hosts and "
        "notifications (default: all of them, with --output)",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="write files to DIR instead of standard output"
    )
    parser.add_argument(
        "--selector",
        type=_selector,
        default=(),
        metavar="MATCHERS",
        help="label matchers for every query, such as 'job=\"node\"', if another exporter has "
        "metrics of the same names; use labels that the scrape sets",
    )
    parser.add_argument(
        "--runbook-url",
        type=_runbook_url,
        metavar="BASE",
        help="address of the folder of the runbooks (default: alerts have no links)",
    )
    parser.set_defaults(usage_error=parser.error)


def _selector(text: str) -> tuple[selector.Matcher, ...]:
    """Label matchers; none if the text is empty."""
    if not text:
        return ()
    parsed = selector.parse(text)
    if isinstance(parsed, Failure):
        raise ArgumentTypeError(
            f'{text!r} are not label matchers such as job="node": {parsed.failure()}'
        )
    return parsed.unwrap()


def _runbook_url(text: str) -> str | None:
    """Address without the last slash; None if the text is empty.

    Braces are refused, because Prometheus expands annotations as templates. No allowed
    character ends a plain scalar of YAML.
    """
    if not text:
        return None
    if not re.fullmatch(r"https?://[A-Za-z0-9._~:/\[\]@!$&'()*+,;=%-]+", text):
        raise ArgumentTypeError(f"{text!r} is not an address such as https://example.com/runbooks")
    return text.rstrip("/")


def _mixin(options: Namespace) -> int:
    signals.install()
    kind: str | None = options.kind
    if kind is None and options.output is None:
        options.usage_error(f"name one of {', '.join(KINDS)}, or give --output DIR")
    if options.selector and kind in {"runbooks", "examples"}:
        options.usage_error(f"--selector has no effect: {kind} have no queries")
    if options.runbook_url and kind not in {None, "alerts"}:
        options.usage_error(f"--runbook-url has no effect: {kind} have no links to runbooks")
    texts = {
        name: text
        for each in ([kind] if kind else KINDS)
        for name, text in documents(
            each, matchers=options.selector, runbook_url=options.runbook_url
        ).items()
    }
    if options.output is None:
        write_out("\n".join(texts.values()))
        return 0
    return _write(texts, options.output)


def _write(texts: dict[str, str], directory: str) -> int:
    """Write files below a directory, which is created, and return the exit status."""
    for name, text in texts.items():
        path = os.path.join(directory, name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            mode = 0o755 if text.startswith("#!") else 0o644
            with atomic_write(path, temporary_path(path), mode) as descriptor:
                write_all(descriptor, text.encode())
        except OSError as error:
            print_error(
                "mixin",
                f"writing {path}: {error.strerror}; check disk space, or set --output to a "
                "directory that you may write to",
            )
            return 1
    say(STDOUT, f"wrote {counted(len(texts), 'file')} to {printable(directory, PATH_LIMIT)}")
    return 0


COMMANDS = {
    "mixin": Command(
        "Print alert rules, runbooks, a Grafana dashboard and examples",
        _add_mixin,
        _mixin,
        "alerts.md",
        {
            "tsfc mixin --output mixin": "write all files to the directory mixin",
            "tsfc mixin alerts --selector 'job=\"node\"'": "print the alerts for the series of one "
            "scrape job",
        },
    ),
}
