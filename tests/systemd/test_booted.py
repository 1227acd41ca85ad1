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
"Numbers of capabilities, from include/uapi/linux/capability.h."
PLACES = ("/", "/etc", "/opt", "/usr", "/var/lib")
SANDBOXES = {
    "DynamicUser=yes; StateDirectory=dynamic": (
        "touch /var/lib/dynamic/file && test $(id -u) -ge 61184"
    ),
    "ProtectSystem=strict": "! test -w /etc && ! test -w /tmp",
    "TemporaryFileSystem=/var:ro; BindPaths=/var/lib": (
        "! test -w /var && test -w /var/lib && ! test -e /var/log"
    ),
    "TemporaryFileSystem=/run:ro; BindReadOnlyPaths=/run/systemd/journal": (
        "test -e /run/systemd/journal/socket && ! test -e /run/systemd/private"
    ),
    "SystemCallFilter=~uname; SystemCallErrorNumber=EPERM": "! uname 2>/dev/null",
    "PrivateNetwork=yes; PrivateDevices=yes; ProcSubset=pid": (
        "! test -e /proc/sys && ! test -e /dev/net"
    ),
    "CapabilityBoundingSet=; NoNewPrivileges=yes": (
        "grep -q 'CapEff:[[:space:]]*0*$' /proc/self/status"
    ),
    "IPAddressDeny=any": "timeout 0.1 bash -c '</dev/tcp/127.0.0.1/1' || test $? = 124",
}
"Each with a command that succeeds only in it."


@pytest.fixture(scope="module", autouse=True)
def _bootable() -> None:
    require(unbootable())


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine with a unit that prints a line, one that fails, and a masked one."""
    units = {
        "prints.service": f"{BARE}ExecStart=/usr/local/bin/prints %n\n",
        "fails.service": f"{BARE}ExecStart=/bin/false\n",
        "masked.service": "",
    }
    files = {f"{UNITS}/{name}": text for name, text in units.items()} | {
        "/usr/local/bin/prints": '#!/bin/sh\necho "I am $1"\n'
    }
    with booted(files=files) as machine:
        yield machine


def test_a_machine_boots(machine: Machine) -> None:
    assert machine.run("systemd-detect-virt", "--container") == (0, "container-other\n", "")
    assert machine.show("dbus.socket", "ActiveState") == "active"


def test_a_oneshot_runs_and_its_output_is_in_the_journal(machine: Machine) -> None:
    machine.run("systemctl", "start", "prints.service")
    assert machine.show("prints.service", "Result") == "success"
    assert machine.journal("--unit=prints.service", "--identifier=prints") == [
        "I am prints.service"
    ]


def test_a_failed_unit_is_detected(machine: Machine) -> None:
    machine.run("systemctl", "start", "--no-block", "fails.service")
    machine.wait_until("fails.service", "ActiveState", "failed")
    with pytest.raises(AssertionError, match="fails"):
        machine.run("systemctl", "start", "fails.service")


def test_an_empty_unit_is_masked(machine: Machine) -> None:
    assert machine.show("masked.service", "LoadState") == "masked"


def test_its_journal_is_new(machine: Machine) -> None:
    assert machine.journal()[0] == "Journal started"


def test_the_checkout_runs_in_the_machine(machine: Machine) -> None:
    assert machine.run(sys.executable, "-m", "tsfc", "--version") == run("--version")


def test_a_program_gets_its_standard_input(machine: Machine) -> None:
    assert machine.run("cat", stdin=b"input") == (0, "input", "")


def test_its_files_can_be_read_and_written_from_the_host(machine: Machine) -> None:
    machine.path("/run/note").write_text("from the host")
    assert machine.run("cat", "/run/note").stdout == "from the host"
    assert not Path("/run/note").exists()


def test_a_path_that_leads_to_the_host_is_refused(machine: Machine) -> None:
    machine.run("ln", "-s", "/run", "/opt/link")
    with pytest.raises(AssertionError, match="leads out"):
        machine.path("/opt/link/note")


def test_it_does_not_write_to_the_host(machine: Machine) -> None:
    machine.run("touch", *(f"{place}/only-here" for place in PLACES))
    assert not [place for place in PLACES if Path(place, "only-here").exists()]


def test_it_cannot_change_the_kernel(machine: Machine) -> None:
    assert machine.run("sh", "-c", "echo x >/proc/sys/kernel/hostname", check=False).status
    status = dict(
        line.split(":\t") for line in machine.path("/proc/1/status").read_text().splitlines()
    )
    assert not int(status["CapBnd"], 16) & (
        1 << CAP_SYS_TIME | 1 << CAP_SYS_MODULE | 1 << CAP_SYS_RAWIO
    )


def test_its_network_has_only_loopback(machine: Machine) -> None:
    addresses = machine.path("/proc/1/net/if_inet6").read_text().splitlines()
    assert [line.split()[-1] for line in addresses] == ["lo"]


@pytest.mark.parametrize(
    ("sandbox", "command"),
    [pytest.param(sandbox, command, id=sandbox) for sandbox, command in SANDBOXES.items()],
)
def test_sandbox_directives_work_in_the_machine(
    machine: Machine, sandbox: str, command: str
) -> None:
    properties = [f"--property={directive}" for directive in sandbox.split("; ")]
    assert machine.run(
        "systemd-run", "--wait", "--pipe", "--quiet", *properties, "sh", "-uc", command, check=False
    ) == (0, "", "")


def test_its_cpu_time_is_measured(machine: Machine) -> None:
    before = machine.cpu_seconds()
    machine.run("systemctl", "start", "prints.service")
    assert before < machine.cpu_seconds() < before + 10


def test_two_machines_run_at_once_and_leave_nothing() -> None:
    with ThreadPoolExecutor(2) as threads:
        left = [trace for traces in threads.map(life, ("one", "two")) for trace in traces]
    assert len(set(left)) == 6
    assert not [trace for trace in left if trace.exists()]


def life(name: str) -> list[Path]:
    """Boot a machine with its name in a file, and return its traces."""
    with booted(files={"/etc/name": name}) as machine:
        assert machine.run("cat", "/etc/name").stdout == name
        machine.run("systemd-run", "--quiet", "sleep", "infinity")
        return traces_of(machine)


def fails(machine: Machine, left: list[Path], error: type[BaseException]) -> None:
    """Record the traces of a machine and fail as a test might."""
    left += traces_of(machine)
    raise error


def traces_of(machine: Machine) -> list[Path]:
    """Return the paths on the host that exist while a machine runs."""
    scratch = re.search(r"upperdir=([^,]*)/upper,", Path(f"/proc/{machine.pid}/mounts").read_text())
    assert scratch
    traces = [machine.group, Path(scratch[1]), Path(f"/proc/{machine.pid}")]
    assert all(trace.exists() for trace in traces)
    return traces


@pytest.mark.parametrize("error", [AssertionError, KeyboardInterrupt])
def test_a_failed_test_leaves_nothing_of_its_machine(error: type[BaseException]) -> None:
    left: list[Path] = []
    with pytest.raises(error), booted() as machine:
        fails(machine, left, error)
    assert not [trace for trace in left if trace.exists()]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({"/etc/passwd/name": ""}, "etc/passwd/name: Cannot open", id="preparing"),
        pytest.param(
            {
                f"{UNITS}/ends.service": f"{BARE}ExecStart=systemctl poweroff -ff\n",
                f"{UNITS}/booted.target.d/ends.conf": "[Unit]\nRequires=ends.service\n",
            },
            "ended",
            id="booting",
        ),
    ],
)
def test_a_failed_boot_is_explained_and_leaves_nothing(
    files: dict[str, str], message: str, machine: Machine
) -> None:
    with pytest.raises(UnbootedError, match=message), booted(files=files):
        pass
    mine = f"tsfc-{os.getpid()}-"
    assert [group for group in machine.group.parent.iterdir() if group.name.startswith(mine)] == [
        machine.group
    ]
