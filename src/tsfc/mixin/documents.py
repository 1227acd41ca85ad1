"""The documents of the mixin, adapted to where they are used.

`files/` has them without a selector. The rule files are valid as they are, except that
`runbook_url` has only the name of the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import cast

from tsfc.mixin.selector import Matcher, select

KINDS = ("rules", "alerts", "dashboard", "runbooks", "examples")
_EXPRESSION = re.compile(r"^( +)expr: \|-\n(?:\1  .*\n)+", re.MULTILINE)
_RUNBOOK = re.compile(r"^ +runbook_url: (.*)\n", re.MULTILINE)
_LINK_OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")
"Link from a runbook to a page that is not a runbook."
_QUERIES = ("expr", "query", "definition")
"Keys of Grafana's JSON whose texts are queries."


def documents(
    kind: str, *, matchers: tuple[Matcher, ...] = (), runbook_url: str | None = None
) -> Mapping[str, str]:
    """Return the documents of one of `KINDS`, by their file names.

    Args:
        kind: what to return.
        matchers: put into every query.
        runbook_url: address of the folder of the runbooks, without the last slash.
            Without it, alerts have no link.
    """
    match kind:
        case "rules":
            return {"tailscale-rules.yaml": _rules(_shipped("rules.yaml"), matchers)}
        case "alerts":
            text = _with_runbooks(_shipped("alerts.yaml"), runbook_url)
            return {"tailscale-alerts.yaml": _rules(text, matchers)}
        case "dashboard":
            board = json.loads(_shipped("dashboard.json"))
            text = json.dumps(_selected(board, matchers), indent=2, sort_keys=True)
            return {"tailscale-dashboard.json": text + "\n"}
        case "runbooks":
            pages = _folder(kind).items()
            return {name: _LINK_OUTSIDE.sub(r"\1", text) for name, text in pages}
        case _:
            return _folder(kind)


_FILES = files("tsfc.mixin") / "files"


def _shipped(name: str) -> str:
    return _FILES.joinpath(name).read_text("utf-8")


def _folder(name: str) -> dict[str, str]:
    """Return the shipped files of a folder by their paths."""
    pages = sorted(_FILES.joinpath(name).iterdir(), key=lambda page: page.name)
    return {f"{name}/{page.name}": page.read_text("utf-8") for page in pages}


def _rules(text: str, matchers: tuple[Matcher, ...]) -> str:
    """Return a rule file with a selector in each expression."""
    return _EXPRESSION.sub(lambda block: select(block[0], matchers), text)


def _with_runbooks(text: str, url: str | None) -> str:
    """Return the alerts with links to the runbooks at `url`, or without links."""
    if url is None:
        return _RUNBOOK.sub("", text)
    return _RUNBOOK.sub(lambda line: line[0].replace(line[1], f"{url}/{line[1]}"), text)


def _selected(part: object, matchers: tuple[Matcher, ...]) -> object:
    """Return a part of the dashboard with a selector in each query."""
    match part:
        case list():
            return [_selected(each, matchers) for each in cast("list[object]", part)]
        case dict():
            return {
                key: select(value, matchers)
                if key in _QUERIES and isinstance(value, str)
                else _selected(value, matchers)
                for key, value in cast("dict[str, object]", part).items()
            }
        case _:
            return part
