"""The wheel has completions, manual pages and the documentation, made from the parsers."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.docs import ROOT
from support.required import program
from tsfc.cli import main as cli

PAGES = ["tsfc", *(f"tsfc-{command}" for command in cli.COMMANDS)]
BASH = """
. share/bash-completion/completions/tsfc
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
$(complete -p tsfc | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""
"Prints how bash would complete the last argument."
COMPLETIONS = [
    ("tsfc pe", {"peers"}),
    ("tsfc ", {*cli.COMMANDS}),
    ("tsfc peers --wa", {"--watch", "--watchdog-metrics"}),
    ("tsfc watchdog --policy ", {"documented", "guarded"}),
    ("tsfc peers --all --source lo", {"localapi"}),
    ("tsfc units --print exporter w", {"watchdog"}),
    ("tsfc simulate stuck", {"stuck-nat"}),
    ("tsfc peers --status-file lib/python", {f"lib/python3.{sys.version_info.minor}"}),
    ("tsfc mixin --output s", {"share"}),
]
"How a line is completed in the prefix of an installation."
FLOWING = ("--no-hyphenation", "--no-justification", "-l")
"Options of man that leave each word as it is."


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefix into which pip has installed the wheel."""
    root = tmp_path_factory.mktemp("wheel")
    build = ["hatchling", "build", "--target", "wheel", "--directory", str(root)]
    subprocess.run([sys.executable, "-m", *build], cwd=ROOT, check=True)
    (wheel,) = root.glob("*.whl")
    install = ["pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    place = ["--ignore-installed", "--no-compile", "--prefix", str(root / "prefix"), str(wheel)]
    subprocess.run([sys.executable, "-m", *install, *place], check=True)
    return root / "prefix"


def output(prefix: Path, *command: str) -> str:
    """Standard output of a program that succeeds and prints no error."""
    ran = subprocess.run(
        command,
        cwd=prefix,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "HOME": str(prefix), "MANWIDTH": "200"},
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


def shown_actions(command: str) -> list[argparse.Action]:
    """Options and arguments in the help of a command."""
    actions = cli._command_parser(command)._actions
    return [action for action in actions if action.help != argparse.SUPPRESS]


def installed(prefix: Path, directory: str) -> list[str]:
    return sorted(path.name for path in (prefix / "share" / directory).iterdir())


def test_it_has_a_manual_page_for_each_command(prefix: Path) -> None:
    assert installed(prefix, "man/man1") == sorted(f"{page}.1" for page in PAGES)


def test_it_has_the_documentation(prefix: Path) -> None:
    assert installed(prefix, "doc/tsfc") == ["README.md", "docs"]
    assert installed(prefix, "doc/tsfc/docs") == sorted(path.name for path in ROOT.glob("docs/*"))


def test_the_help_of_an_installation_names_an_installed_page(prefix: Path) -> None:
    script = "from tsfc.cli.main import main; main(['watchdog', '--help'])"
    packages = next(prefix.glob("lib/*/site-packages"))
    out = output(prefix, "env", f"PYTHONPATH={packages}", sys.executable, "-c", script)
    assert out.endswith(f"\nmore: {prefix}/share/doc/tsfc/docs/policy.md\n")


@pytest.mark.parametrize(("line", "completed"), COMPLETIONS)
def test_bash_completes(prefix: Path, line: str, completed: set[str]) -> None:
    words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
    out = output(prefix, "bash", "--norc", "-c", BASH, "bash", *words)
    assert set(out.split()) == completed


@pytest.mark.parametrize(("line", "completed"), COMPLETIONS)
def test_fish_completes(prefix: Path, line: str, completed: set[str]) -> None:
    script = "source share/fish/vendor_completions.d/tsfc.fish; complete --do-complete $argv[1]"
    out = output(prefix, program("fish", "fish"), "--no-config", "-c", script, line)
    assert {text.split("\t")[0].rstrip("/") for text in out.splitlines()} == completed


def test_zsh_finds_the_completion_which_has_no_syntax_error(prefix: Path) -> None:
    zsh = program("zsh", "zsh")
    output(prefix, zsh, "-n", "share/zsh/site-functions/_tsfc")
    script = (
        "fpath=(share/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D; "
        "print $_comps[tsfc]"
    )
    assert output(prefix, zsh, "-f", "-c", script) == "_tsfc\n"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_bash_and_zsh_know_each_option(prefix: Path, command: str) -> None:
    known = {
        option
        for action in shown_actions(command)
        for option in action.option_strings
        if option.startswith("--")
    }
    out = output(prefix, "bash", "--norc", "-c", BASH, "bash", "tsfc", command, "--")
    assert set(out.split()) == known
    zsh = (prefix / "share/zsh/site-functions/_tsfc").read_text()
    assert [option for option in sorted(known) if option not in zsh] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_manual_page_has_no_error(prefix: Path, page: str) -> None:
    """It loses no option and no example on the way to the screen."""
    path = f"share/man/man1/{page}.1"
    assert output(prefix, program("mandoc", "mandoc"), "-T", "lint", "-W", "warning", path) == ""
    text = output(prefix, program("man", "man-db"), "--warnings", *FLOWING, path)
    command = page.partition("-")[2]
    examples = cli.find_command(command).examples if command else cli.EXAMPLES
    assert [example for example in examples if example not in text] == []
    if command:
        options = shown_actions(command)
        assert [
            option
            for action in options
            for option in action.option_strings
            if option not in {"-h", "--help"} and f"\n       {option}" not in text
        ] == []
        # A line that began with "." would be a macro, and missing.
        helps = [" ".join((action.help or "").split()) for action in options]
        shown = " ".join(text.split())
        assert [each for each in helps if "%" not in each and each not in shown] == [
            "show this help message and exit"
        ]
