from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.booted import UNITS, Machine, UnbootedError, booted, unbootable
from support.processes import run
from support.required import require

BARE = "[Service]\nType=oneshot\n"
CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_TIME = 16, 17, 25
"As include/uapi/linux/capability.h numbers them."
PLACES = ("/", "/etc", "/opt", "/usr", "/var/lib")
SANDBOXES = {
    "DynamicUser=yes; StateDirectory=dynamic": "touch /var/lib/dynamic/file && test $(id -u) -ge 61184",
    "ProtectSystem=strict": "! test -w /etc && ! test -w /tmp",
    "TemporaryFileSystem=/var:ro; BindPaths=/var/lib": "! test -w /var && test -w /var/lib && ! test -e /var/log",
    "TemporaryFileSystem=/run:ro; BindReadOnlyPaths=/run/systemd/journal": "test -e /run/systemd/journal/socket && ! test -e /run/systemd/private",
    "SystemCallFilter=~uname; SystemCallErrorNumber=EPERM": "! uname 2>/dev/null",
    "PrivateNetwork=yes; PrivateDevices=yes; ProcSubset=pid": "! test -e /proc/sys && ! test -e /dev/net",
    "CapabilityBoundingSet=; NoNewPrivileges=yes": "grep -q 'CapEff:[[:space:]]*0*$' /proc/self/status",
    "IPAddressDeny=any": "timeout 0.1 bash -c '</dev/tcp/127.0.0.1/1' || test $? = 124",
}
"Each with a command that succeeds in it and nowhere else."


@pytest.fixture(scope="module", autouse=True)
def _bootable() -> None:
    require(unbootable())


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with a unit that says something, one that fails, and one that is masked."""
    units = {
        "says.service": f"{BARE}ExecStart=/usr/local/bin/says %n\n",
        "fails.service": f"{BARE}ExecStart=/bin/false\n",
        "masked.service": "",
    }
    files = {f"{UNITS}/{name}": text for name, text in units.items()} | {
        "/usr/local/bin/says": '#!/bin/sh\necho "I am $1"\n'
    }
    with booted(files=files) as machine:
        yield machine


def test_it_is_up(machine: Machine) -> None:
    assert machine.run("systemd-detect-virt", "--container") == (0, "container-other\n", "")
    assert machine.show("dbus.socket", "ActiveState") == "active"


def test_a_oneshot_runs_and_the_journal_has_what_it_said(machine: Machine) -> None:
    machine.run("systemctl", "start", "says.service")
    assert machine.show("says.service", "Result") == "success"
    assert machine.journal("--unit=says.service", "--identifier=says") == ["I am says.service"]


def test_a_unit_that_fails_is_seen_to(machine: Machine) -> None:
    machine.run("systemctl", "start", "--no-block", "fails.service")
    machine.wait_until("fails.service", "ActiveState", "failed")
    with pytest.raises(AssertionError, match="fails"):
        machine.run("systemctl", "start", "fails.service")


def test_an_empty_unit_is_masked(machine: Machine) -> None:
    assert machine.show("masked.service", "LoadState") == "masked"


def test_its_journal_begins_with_it(machine: Machine) -> None:
    assert machine.journal()[0] == "Journal started"


def test_the_checkout_runs_in_it(machine: Machine) -> None:
    assert machine.run(sys.executable, "-m", "tsfc", "--version") == run("--version")


def test_it_is_given_input(machine: Machine) -> None:
    assert machine.run("cat", stdin=b"input") == (0, "input", "")


def test_its_files_are_seen_and_written_from_outside(machine: Machine) -> None:
    machine.path("/run/note").write_text("from outside")
    assert machine.run("cat", "/run/note").stdout == "from outside"
    assert not Path("/run/note").exists()


def test_a_path_that_would_lead_out_of_it_is_refused(machine: Machine) -> None:
    machine.run("ln", "-s", "/run", "/opt/link")
    with pytest.raises(AssertionError, match="leads out"):
        machine.path("/opt/link/note")


def test_what_it_writes_is_its_own(machine: Machine) -> None:
    machine.run("touch", *(f"{place}/only-here" for place in PLACES))
    assert not [place for place in PLACES if Path(place, "only-here").exists()]


def test_the_kernel_beneath_is_shut(machine: Machine) -> None:
    assert machine.run("sh", "-c", "echo x >/proc/sys/kernel/hostname", check=False).status
    status = dict(
        line.split(":\t") for line in machine.path("/proc/1/status").read_text().splitlines()
    )
    assert not int(status["CapBnd"], 16) & (
        1 << CAP_SYS_TIME | 1 << CAP_SYS_MODULE | 1 << CAP_SYS_RAWIO
    )


def test_its_network_is_its_own(machine: Machine) -> None:
    addresses = machine.path("/proc/1/net/if_inet6").read_text().splitlines()
    assert [line.split()[-1] for line in addresses] == ["lo"]


@pytest.mark.parametrize(("sandbox", "command"), SANDBOXES.items(), ids=SANDBOXES)
def test_a_sandbox_holds_in_it(machine: Machine, sandbox: str, command: str) -> None:
    properties = [f"--property={one}" for one in sandbox.split("; ")]
    assert machine.run(
        "systemd-run", "--wait", "--pipe", "--quiet", *properties, "sh", "-uc", command, check=False
    ) == (0, "", "")


def test_its_cpu_time_is_counted(machine: Machine) -> None:
    before = machine.cpu_seconds()
    machine.run("systemctl", "start", "says.service")
    assert before < machine.cpu_seconds() < before + 10


def test_two_at_once_and_nothing_is_left_of_them() -> None:
    with ThreadPoolExecutor(2) as threads:
        left = [trace for traces in threads.map(life, ("one", "two")) for trace in traces]
    assert len(set(left)) == 6
    assert not [trace for trace in left if trace.exists()]


def life(name: str) -> list[Path]:
    """Boots a machine with its name in a file, and returns its traces."""
    with booted(files={"/etc/name": name}) as machine:
        assert machine.run("cat", "/etc/name").stdout == name
        machine.run("systemd-run", "--quiet", "sleep", "infinity")
        return traces_of(machine)


def fails(machine: Machine, left: list[Path], error: type[BaseException]) -> None:
    """Fails as a test might, its traces noted."""
    left += traces_of(machine)
    raise error


def traces_of(machine: Machine) -> list[Path]:
    """Returns what there is of it on the machine beneath, and is there."""
    scratch = re.search(r"upperdir=([^,]*)/upper,", Path(f"/proc/{machine.pid}/mounts").read_text())
    assert scratch
    traces = [machine.group, Path(scratch[1]), Path(f"/proc/{machine.pid}")]
    assert all(trace.exists() for trace in traces)
    return traces


@pytest.mark.parametrize("error", [AssertionError, KeyboardInterrupt])
def test_nothing_is_left_of_one_whose_test_fails(error: type[BaseException]) -> None:
    left: list[Path] = []
    with pytest.raises(error), booted() as machine:
        fails(machine, left, error)
    assert not [trace for trace in left if trace.exists()]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"/etc/passwd/name": ""}, "etc/passwd/name: Cannot open"),
        (
            {
                f"{UNITS}/ends.service": f"{BARE}ExecStart=systemctl poweroff -ff\n",
                f"{UNITS}/booted.target.d/ends.conf": "[Unit]\nRequires=ends.service\n",
            },
            "ended",
        ),
    ],
    ids=["when it is prepared", "when it boots"],
)
def test_one_that_does_not_come_up_says_why_and_leaves_nothing(
    files: dict[str, str], said: str, machine: Machine
) -> None:
    with pytest.raises(UnbootedError, match=said), booted(files=files):
        pass
    mine = f"tsfc-{os.getpid()}-"
    assert [group for group in machine.group.parent.iterdir() if group.name.startswith(mine)] == [
        machine.group
    ]
