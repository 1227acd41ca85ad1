"""Render and write the report of `replay` and `simulate`: one HTML file.

The page contains everything it needs and makes no requests. Its Content-Security-Policy
enforces that: it allows only the style and the script from `page/`, by their digests.
Names come from other people's machines. Jinja escapes them in the markup, and `drawing`
escapes them in the JSON.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tsfc.offline.extras import advice
from tsfc.offline.report import assets, drawing
from tsfc.offline.report.document import Document
from tsfc.shell.atomic import (
    NotRegularError,
    atomic_write,
    require_replaceable,
    temporary_path,
    write_all,
)
from tsfc.shell.console import print_error


def obstacle(path: str) -> str | None:
    """Return one line about why no report can be written to `path`, or None.

    Call it before the work, so that hours of simulation are not lost.
    """
    try:
        import_module("jinja2")
    except ImportError:
        return f"--report needs Jinja, which is not installed; {advice('report')}"
    try:
        require_replaceable(path)
    except OSError as error:
        return _write_error(path, error)
    return None


def write(tool: str, path: str, document: Document) -> int:
    """Write the report to `path` atomically and return the exit status.

    Errors are printed in the name of `tool`.
    """
    try:
        with atomic_write(path, temporary_path(path), 0o644) as descriptor:
            write_all(descriptor, page(document).encode())
    except OSError as error:
        print_error(tool, _write_error(path, error))
        return 1
    return 0


def _write_error(path: str, error: OSError) -> str:
    advice = (
        "set --report to a regular file"
        if isinstance(error, NotRegularError)
        else "set --report to a writable path on a disk with free space"
    )
    return f"writing {path}: {error.strerror}; {advice}"


def page(document: Document) -> str:
    """Return the HTML. Jinja must be installed."""
    jinja2: Any = import_module("jinja2")  # optional, so not imported above
    style, script = assets.style(), assets.script()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = document.drawing
    template = environment.from_string(assets.read("report.html.j2"))
    rendered: str = template.render(
        document=document,
        program=assets.program(),
        data=None if shown is None else drawing.for_script(drawing.data(shown)),
        timeline="" if shown is None else assets.timeline(shown.caption),
        style=style,
        script=script,
        style_digest=assets.digest(style),
        script_digest=assets.digest(script),
    )
    return rendered
