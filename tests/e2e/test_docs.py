"""The commands of README and docs that have to do with a node, run on one, as they are written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from lab import NAT, Lab
from support.docs import filled_in, shown
from support.hosts import PACKAGE, STATE
from support.processes import Ran, wait_until
from support.tailnets import Booted, booted_node

ELSEWHERE = {
    r"make |python -m lab ": "are for developers; tests/test_docs.py holds them against the Makefile and the lab",
    r"tsfc (simulate|stand-in|replay) |tsfc .* --status-file |mkdir -p run/rules": "ask no node; tests/test_docs.py runs them",
    r"python3 -m venv |pip install |pipx install ": "take an index of packages; `support.hosts` installs what they would",
    r"node_exporter ": "has another name in Debian; tests/systemd/test_collectors.py runs it",
    r"journalctl -u (prometheus-node-exporter|alloy) ": "are not installed on this node",
}
"What is not run here, and why."
WITHOUT_END = {r"journalctl .* -f$": 2, r"tsfc capture ": 2, r"mkdir .*while sleep": 15}
"What goes on until Ctrl-C, and the seconds until there is something to see."
DISTURBING = r"tailscale (up|down)|systemctl restart "
"After what the paths have to be found anew, for ten seconds or so: these come last."
INTERRUPTED = 130
INACTIVE = 3
"What `systemctl status` returns for a job between its runs."
SHELL = f"""
PATH={PACKAGE}/bin:$PROGRAMS:$PATH HOME=/root SYSTEMD_EDITOR='sed -i 3a[Unit]'
export PATH HOME SYSTEMD_EDITOR
sudo() {{ "$@"; }}
cd
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Booted]:
    """A node on which there is something to see: tailscaled was down, and was restarted because of a peer that never gets direct."""
    with Lab(bravo=NAT.EASY, carol=NAT.NO_UDP) as lab, booted_node(lab, "alpha", NAT.EASY) as alpha:
        machine = alpha.host.machine
        machine.run("systemctl", "stop", "tailscaled.service")
        alpha.host.start("exporter")
        machine.run("systemctl", "start", "tailscaled.service")
        lab.wait_until(
            lambda: (alpha.pinged("bravo"), alpha.pinged("carol")) == ("direct", "derp"), 60
        )
        alpha.host.start("watchdog")
        machine.run("sh", "-c", f"expr $(date +%s) - 601 > {STATE}/peer_carol")
        alpha.host.start("watchdog")
        lab.wait_until(lambda: alpha.pinged("bravo") == "direct", 60)
        yield alpha


def run(node: Booted, command: str) -> Ran:
    """Runs a command in a shell of a node, as somebody who types it there."""
    command = filled_in(command)
    seconds = next(
        (
            seconds
            for pattern, seconds in WITHOUT_END.items()
            if re.match(pattern, command, re.DOTALL)
        ),
        60,
    )
    if command.startswith("systemctl edit "):  # wants a terminal
        command = f"script --quiet --return --command {shlex.quote(command)} /dev/null"
    shell = SHELL.replace("$PROGRAMS", str(node.node.programs)) + command
    return node.host.machine.run(
        "timeout",
        "--preserve-status",
        "--signal=INT",
        str(seconds),
        "sh",
        "-euc",
        shell,
        check=False,
    )


def wanted(command: str) -> set[int]:
    """Returns the exit statuses that a command may have."""
    if any(re.match(pattern, command, re.DOTALL) for pattern in WITHOUT_END):
        return {INTERRUPTED}
    return {0, INACTIVE} if re.match(r"systemctl status tailscale-", command) else {0}


def bring_up(node: Booted) -> None:
    """Waits until a node shows its peers; it may be stopped."""
    if "Tailscale is stopped." in node.tailscale("status", check=False):
        node.tailscale("up")  # only then: else it would be one for the usual coordination server
    wait_until(lambda: node.path_to("bravo") != "", "the node is up")


def test_each_command_does_what_it_is_shown_for(node: Booted) -> None:
    """One that fails on a node where all is as the page says, or looks into a journal where nothing is, is none to send a reader to."""
    pages = {
        command: page
        for page, command in shown()
        if not any(re.match(pattern, command) for pattern in ELSEWHERE)
    }
    failed: dict[str, Ran] = {}
    for command in sorted(pages, key=lambda command: bool(re.match(DISTURBING, command))):
        bring_up(node)
        if command == "tailscale up":
            node.tailscale("down")  # the pages show it for such a node
        ran = run(node, command)
        if printed := re.search(r"^\t(tailscale up --force-reauth .*)$", ran.stderr, re.MULTILINE):
            ran = run(node, printed[1])
        if ran.status not in wanted(command) or "-- No entries --" in ran.stdout:
            failed[f"{pages[command]}: {command}"] = ran
    assert failed == {}
