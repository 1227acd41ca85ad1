"""The lab itself: its isolation, its error messages, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import NAT, Lab, UnmetError, builds
from lab.builds import BuildError
from support.booted import CHECKOUT
from support.processes import interrupt, is_alive, wait_until

LAB_PROGRAM = """
import signal, sys
from lab import NAT, Lab
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores SIGINT
with Lab(alpha=NAT.EASY, bravo=NAT.HARD) as lab:
    print(lab.directory, lab.control.pid, *(node.pid for node in lab.nodes.values()), flush=True)
    sys.stdin.readline()
    {ending}
"""


@contextmanager
def lab_process(ending: str) -> Generator[tuple[subprocess.Popen[bytes], Path, list[int]]]:
    """Run a process with a lab, which executes `ending` after a line on standard input.

    Yield the process, the directory of the lab and the IDs of its processes.
    """
    program = [sys.executable, "-c", LAB_PROGRAM.format(ending=ending)]
    with subprocess.Popen(
        program, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout
            directory, *pids = process.stdout.readline().decode().split()
            yield process, Path(directory), [int(pid) for pid in pids]
        finally:
            process.kill()


def networks() -> set[str]:
    """Return the network namespaces of all processes."""
    namespaces = set[str]()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            namespaces.add(os.readlink(process / "ns/net"))
        except OSError:
            continue
    return namespaces


@pytest.mark.parametrize(
    ("ending", "number"),
    [
        pytest.param("pass", None, id="success"),
        pytest.param("raise SystemExit(3)", None, id="failure"),
        pytest.param("signal.pause()", signal.SIGINT, id="ctrl-c"),
        pytest.param("signal.pause()", signal.SIGKILL, id="kill -9"),
    ],
)
def test_a_lab_leaves_nothing_behind(ending: str, number: signal.Signals | None) -> None:
    with lab_process(ending) as (process, directory, pids):
        assert len(pids) == 3
        namespaces = {os.readlink(f"/proc/{pid}/ns/net") for pid in pids}
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()
        if number is not None:
            interrupt(process, number)
        process.wait(30)
        wait_until(lambda: not any(is_alive(pid) for pid in pids), "its processes have ended")
        assert not namespaces & networks()
        # A killed process cannot remove its directory.
        assert directory.exists() == (number == signal.SIGKILL)
        if directory.exists():
            subprocess.run(["rm", "-r", str(directory)], check=True)


def test_a_lab_changes_nothing_on_the_machine(release: str) -> None:
    def listings() -> dict[str, list[str]]:
        places = (
            "/sys/class/net",
            "/run/netns",
            "/run/tailscale",
            "/var/lib/tailscale",
            "/var/cache/tailscale",
            "/var/log/tailscale",
        )
        return {
            place: sorted(os.listdir(place)) if Path(place).exists() else [] for place in places
        }

    before = listings()
    with Lab(version=release, alpha=NAT.EASY, bravo=NAT.PUBLIC):
        assert listings() == before
    assert listings() == before


def test_two_labs_are_separate() -> None:
    with Lab(alpha=NAT.EASY, bravo=NAT.EASY) as one, Lab(alpha=NAT.EASY, carol=NAT.PUBLIC) as other:
        assert set(one.control_nodes()) == {"alpha", "bravo"}
        assert set(other.control_nodes()) == {"alpha", "carol"}
        assert [peer["HostName"] for peer in one.node("alpha").peers()] == ["bravo"]
        assert [peer["HostName"] for peer in other.node("alpha").peers()] == ["carol"]
        other.wait_until(lambda: other.node("alpha").ping("carol").get("Endpoint"), 30)
        one.block_udp("bravo")
        assert other.node("alpha").ping("carol").get("Endpoint")


def test_the_error_of_an_unmet_condition_describes_the_lab() -> None:
    with Lab(alpha=NAT.EASY, bravo=NAT.NO_UDP) as lab:
        alpha = lab.node("alpha")
        alpha.ping("bravo")
        with pytest.raises(UnmetError) as caught:
            lab.wait_until(lambda: alpha.is_direct("bravo"), 0.2)
        message = str(caught.value)
        assert "after 0.2 s" in message
        assert 'active; relay "fra"' in message
        assert "== bravo, noudp, Running" in message


def test_a_node_sees_the_changes_at_the_coordination_server() -> None:
    with Lab(alpha=NAT.EASY, bravo=NAT.EASY) as lab:
        alpha = lab.node("alpha")
        lab.set_online("bravo", online=False)
        lab.wait_until(lambda: not alpha.peer("bravo")["Online"], 30)
        lab.set_online("bravo", None)
        lab.wait_until(lambda: alpha.peer("bravo")["Online"], 30)
        lab.node("bravo").stop()
        lab.wait_until(
            lambda: (
                not alpha.peer("bravo")["Online"] and not lab.control_nodes()["bravo"]["online"]
            ),
            30,
        )
        lab.node("bravo").start()
        lab.wait_until(lambda: alpha.peer("bravo")["Online"], 30)
        lab.expire_in("bravo", 1)
        lab.wait_until(lambda: alpha.peer("bravo").get("Expired"), 30)


def test_the_lab_names_a_missing_requirement(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        builds.missing.cache_clear()
        if not Path("/usr/bin/go").exists():
            assert builds.missing() == "the lab needs Go 1.26.6 or newer; there is no go on PATH"
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        builds.missing.cache_clear()
        assert builds.missing() == "the lab needs root to create network namespaces"
    finally:
        builds.missing.cache_clear()


def test_a_failed_build_reports_one_line_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, box: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(box))
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    with pytest.raises(BuildError) as caught:
        builds.tailscale("v0.0.1-none")
    assert str(caught.value).startswith(
        "building tailscale and tailscaled v0.0.1-none with `go install "
    )
    assert "\n" not in str(caught.value)
    assert [path.name for path in (box / "tsfc-lab").iterdir()] == ["lock"]


def lab(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *arguments],
        cwd=CHECKOUT,
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def cache(box: Path) -> Generator[Path]:
    """A private cache with links to the programs; a lab that is still up is stopped."""
    built = builds.cache_directory()
    builds.server()
    (box / "tsfc-lab").mkdir()
    for directory in built.iterdir():
        if directory.is_dir() and (directory.name[0] == "v" or directory.name.startswith("server")):
            (box / "tsfc-lab" / directory.name).symlink_to(directory)
    yield box
    lab("down", cache=box)


def test_up_starts_a_usable_lab_and_down_stops_it(cache: Path) -> None:
    up = lab("up", cache=cache)
    assert (up.returncode, up.stderr) == (0, "")
    directory = up.stdout.splitlines()[0].removeprefix("A lab is up, in ").removesuffix(":")
    assert (
        "Running"
        in subprocess.run(
            [f"{directory}/alpha/tailscale", "status", "--json"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert (
        "198.51.100."
        in subprocess.run(
            [f"{directory}/alpha/inside", "ip", "address"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    for change in (["-f", f"{directory}/outage.nft"], ["delete", "table", "ip", "outage"]):
        subprocess.run([f"{directory}/alpha/router", "nft", *change], check=True)
    again = lab("up", cache=cache)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "lab: starting a lab: a lab is already up; `make lab-down` stops it\n"
    assert lab("down", cache=cache).returncode == 0
    assert not Path(directory).exists()
    assert (
        lab("down", cache=cache).stderr
        == "lab: stopping the lab: no lab is up; `make lab` starts one\n"
    )


def test_an_unknown_command_prints_the_usage(cache: Path) -> None:
    wrong = lab("upp", cache=cache)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "lab: usage: python -m lab build|up|down|fixtures|measure [NAME...]|agent [MINUTES]\n",
    )


@pytest.mark.parametrize("minutes", ["0", "-1", "soon"])
def test_the_comparison_of_the_agent_needs_a_number_of_minutes(cache: Path, minutes: str) -> None:
    wrong = lab("agent", minutes, cache=cache)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        f"lab: {minutes!r} is not a number of minutes; give one such as 60\n",
    )
