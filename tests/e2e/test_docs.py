"""The commands of README and docs that need a node run on one, as written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from lab import NAT, Lab
from support.docs import commands, fill_in
from support.hosts import PACKAGE, STATE
from support.processes import Completed, wait_until
from support.tailnets import Booted, booted_node

ELSEWHERE = {
    r"make |python -m lab ": "for developers; tests/test_docs.py checks that they exist",
    r"tsfc (simulate|stand-in|replay) |tsfc .* --status-file |tsfc mixin ": (
        "need no node; tests/test_docs.py runs them"
    ),
    r"python3 -m venv |pip install |pipx (install|inject) ": (
        "need a package index; `support.hosts` installs the same"
    ),
    r"apt-get install ./dist|install dist/|docker ": "tests/packages tries these packages",
    r"dpkg-statoverride ": (
        "moves the metrics that other commands read; tests/systemd/test_collectors.py runs it"
    ),
    r"node_exporter ": "has another name on Debian; tests/systemd/test_collectors.py runs it",
    r"tsfc .*tailscale-work|journalctl -t tailscale-watchdog-work": (
        "need a second tailscaled; tests/units/test_instances.py installs its units"
    ),
    r"journalctl -t tailscale-watchdog-notify": (
        "nothing is notified on this node; tests/systemd/test_restart.py has it"
    ),
    r"journalctl -u (prometheus-node-exporter|alloy) ": "not installed on this node",
}
"Patterns of commands that do not run here, with the reason."
ENDLESS = {
    r"(systemctl list-timers .*)?journalctl .* -f$": 2,
    r"tsfc peers --watch": 5,
    r"tsfc capture ": 2,
    r"tsfc agent": 5,
    r"mkdir .*while sleep": 15,
}
"Patterns of commands that run until Ctrl-C, with the seconds to run them."
DISTURBING = r"tailscale (up|down)|systemctl restart "
"Pattern of commands after which paths need about ten seconds; they run last."
INTERRUPTED = 130
INACTIVE = 3
"Exit status of `systemctl status` for a job between its runs."
SHELL = f"""
PATH={PACKAGE}/bin:$PROGRAMS:$PATH HOME=/root SYSTEMD_EDITOR='sed -i 3a[Unit]'
export PATH HOME SYSTEMD_EDITOR
sudo() {{ "$@"; }}
cd
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Booted]:
    """A node with a history.

    tailscaled was down, and the watchdog restarted it because of a peer that can never
    be direct. The helper would refuse to restart a tailscaled that is younger than the
    threshold, so that is a second.
    """
    with (
        Lab(bravo=NAT.EASY, carol=NAT.NO_UDP) as lab,
        booted_node(lab, "alpha", NAT.EASY, "--watchdog-max-relay-seconds=1") as alpha,
    ):
        machine = alpha.host.machine
        machine.run("systemctl", "stop", "tailscaled.service")
        alpha.host.start("exporter")
        machine.run("systemctl", "start", "tailscaled.service")
        lab.wait_until(
            lambda: (alpha.pinged("bravo"), alpha.pinged("carol")) == ("direct", "derp"), 60
        )
        alpha.host.start("watchdog")
        machine.run(
            "sh", "-c", f"rm {STATE}/state.json; expr $(date +%s) - 601 > {STATE}/peer_carol"
        )
        alpha.host.start("watchdog")
        lab.wait_until(lambda: alpha.pinged("bravo") == "direct", 60)
        yield alpha


def run(node: Booted, command: str) -> Completed:
    """Run a command in a shell on a node."""
    command = fill_in(command)
    seconds = next(
        (seconds for pattern, seconds in ENDLESS.items() if re.match(pattern, command, re.DOTALL)),
        60,
    )
    if command.startswith("systemctl edit "):  # needs a terminal
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


def allowed_statuses(command: str) -> set[int]:
    """Exit statuses that a command may have."""
    if any(re.match(pattern, command, re.DOTALL) for pattern in ENDLESS):
        return {INTERRUPTED, *([0] if "--watch" in command else [])}
    return {0, INACTIVE} if re.match(r"systemctl status tailscale-", command) else {0}


def bring_up(node: Booted) -> None:
    """Wait until a node sees its peers. Tailscale on it may be stopped."""
    if "Tailscale is stopped." in node.tailscale("status", check=False):
        node.tailscale("up")  # only if stopped: otherwise it logs in to Tailscale's own server
    wait_until(lambda: node.path_to("bravo") != "", "the node is up")


def test_each_command_on_a_page_works_on_a_node(node: Booted) -> None:
    """It succeeds, and finds something in the journal if it reads the journal."""
    pages = {
        command: page
        for page, command in commands()
        if not any(re.match(pattern, command) for pattern in ELSEWHERE)
    }
    failed: dict[str, Completed] = {}
    for command in sorted(pages, key=lambda command: bool(re.match(DISTURBING, command))):
        bring_up(node)
        if command == "tailscale up":
            node.tailscale("down")  # the pages show it for a stopped node
        ran = run(node, command)
        if printed := re.search(r"^\t(tailscale up --force-reauth .*)$", ran.stderr, re.MULTILINE):
            ran = run(node, printed[1])
        if ran.status not in allowed_statuses(command) or "-- No entries --" in ran.stdout:
            failed[f"{pages[command]}: {command}"] = ran
    assert failed == {}
