"""A machine for tests: systemd as PID 1 of its own namespaces, on an overlay of `/`.

It writes to memory, so the host stays unchanged. It shares the kernel of the host, so
`/sys` and `/proc/sys` are read-only, and it may neither load modules nor set the clock.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from support.processes import DEADLINE_SECONDS, Completed, short_directory, wait_until

CHECKOUT = Path(__file__).parents[2]
UNITS = "/etc/systemd/system"
"Directory for the units of a test."
SYSTEMD = "/lib/systemd/systemd"
PROGRAMS = (
    "journalctl",
    "mount",
    "nsenter",
    "pivot_root",
    "setpriv",
    "sh",
    "systemctl",
    "tar",
    "unshare",
)
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
POLL_SECONDS = 0.02
TARGET = f"{UNITS}/booted.target"
"The unit to boot: everything up to `basic.target`, and D-Bus."
OWN_FILES = {
    TARGET: "[Unit]\nRequires=basic.target\nWants=dbus.socket\nAfter=basic.target dbus.socket\n",
    f"{UNITS}/systemd-binfmt.service": "",
    f"{UNITS}/proc-sys-fs-binfmt_misc.automount": "",
}
"An empty unit is masked. Binary formats are a setting of the shared kernel."

PREPARE = r"""
# The PID on the host: /proc is still that of the host.
read -r pid _ </proc/self/stat
group=$1 scratch=$2 init=$3; shift 3
umask 022
echo 0 >"$group/cgroup.procs"
mount -t tmpfs tmpfs "$scratch"
cd "$scratch"
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" overlay root
cd root
# Drop the enabled units, the mounts and the logs of the host.
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires
rm -rf etc/fstab etc/crypttab var/log/journal

mount -t proc proc proc
mount -t sysfs -o nosuid,nodev,noexec sysfs sys
mount -o remount,bind,ro sys
for shut in proc/sys proc/sysrq-trigger; do
  [ -e "$shut" ] || continue
  mount --bind "$shut" "$shut"
  mount -o remount,bind,ro "$shut"
done
mount --bind "$group" sys/fs/cgroup
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs run
mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs tmp
mount -t tmpfs -o nosuid,mode=755 tmpfs dev
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty dev/
mkdir dev/net dev/pts dev/shm
[ ! -e /dev/net/tun ] || cp -a /dev/net/tun dev/net/
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
for place; do                                         # the overlay covers only one file system
  mkdir -p ".$place"
  mount --bind "$place" ".$place"
  mount -o remount,bind,ro ".$place"
done

pivot_root . .
umount -l .
mount --make-rshared /
# From standard input. Only now do absolute links lead into the new root.
tar --extract --directory /
echo "$pid"
exec env -i container=tsfc "PATH=$PATH" unshare --cgroup \
  setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time "$init" --unit=booted.target \
  </dev/null >/dev/null
"""


class UnbootedError(Exception):
    """A machine did not boot. The text has its last output."""


@dataclass(frozen=True)
class Machine:
    """A running machine."""

    pid: int
    "PID on the host of its PID 1."
    group: Path
    "Path on the host of its control group."

    def run(self, *argv: str, check: bool = True, stdin: bytes = b"") -> Completed:
        """Run a program as root and wait for it; with `check` it must succeed."""
        command = ("nsenter", "--target", str(self.pid), "--all", *argv)
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env=ENVIRONMENT,
            umask=0o022,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        ran = Completed(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert not check or ran.status == 0, f"{argv}: {ran}"
        return ran

    def path(self, inside: str) -> Path:
        """Return the path on the host of a file of the machine."""
        root = Path(f"/proc/{self.pid}/root")
        path = root / inside.removeprefix("/")
        for part in (path, *path.parents):
            if part == root:
                break
            assert not (part.is_symlink() and part.readlink().is_absolute()), (
                f"{part} is a link that leads out of the machine"
            )
        return path

    def journal(self, *arguments: str) -> list[str]:
        """Return the messages of its journal up to now."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--quiet", "--output=cat", *arguments).stdout.splitlines()

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit, as `systemctl show` prints it."""
        return self.run(
            "systemctl", "show", f"--property={name}", "--value", unit
        ).stdout.removesuffix("\n")

    def wait_until(self, unit: str, name: str, value: str) -> None:
        """Wait until a property of a unit has a value."""
        wait_until(lambda: self.show(unit, name) == value, f"{name}={value} of {unit}")

    def cpu_seconds(self) -> float:
        """Return the CPU time of its processes, without those that `run` started."""
        stat = dict(line.split() for line in (self.group / "cpu.stat").read_text().splitlines())
        return int(stat["usage_usec"]) / 1e6


@contextmanager
def booted(
    *, files: Mapping[str, str] = {}, network: Path | None = None, visible: Sequence[Path] = ()
) -> Generator[Machine]:
    """Boot a machine that runs until the block ends, or the thread that booted it.

    Args:
        files: texts by absolute path, written before the boot. A text that begins with
            `#!` becomes executable; an empty unit is masked.
        network: path of the network namespace to use; by default a new one, with only
            the loopback interface up.
        visible: directories of the host to show at the same path, read-only.
    """
    with _first_process(SYSTEMD, OWN_FILES | dict(files), network, visible) as (
        machine,
        process,
        errors,
    ):
        _wait_until_up(machine, process, errors)
        yield machine


@functools.cache
def unbootable() -> str | None:
    """Return in one line why this host cannot boot a machine; None if it can."""
    if os.geteuid() != 0:
        return "booting a machine needs root"
    for program in PROGRAMS:
        if shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
            return f"booting a machine needs {program}"
    if not Path(SYSTEMD).exists():
        return f"booting a machine needs {SYSTEMD}"
    if _hierarchy() is None:
        return "booting a machine needs a cgroup2 file system"
    try:
        with _first_process("/bin/true", {}, None, ()) as (_, process, errors):
            if process.wait(DEADLINE_SECONDS):
                return _in_one_line(errors)
    except (OSError, UnbootedError) as error:
        return f"{error}"
    return None


@contextmanager
def _first_process(
    init: str, files: Mapping[str, str], network: Path | None, visible: Sequence[Path]
) -> Generator[tuple[Machine, subprocess.Popen[bytes], IO[bytes]]]:
    """Prepare a machine and start its PID 1.

    Also yield the process on the host that ends with it, and its standard error.
    """
    elsewhere = ("--net",) if network is None else ()
    inside = () if network is None else ("nsenter", f"--net={network}")
    unshare = (
        "unshare",
        "--fork",
        "--kill-child",
        "--pid",
        "--mount",
        "--propagation=private",
        "--ipc",
        "--uts",
        *elsewhere,
    )
    with (
        _control_group() as group,
        short_directory() as scratch,
        tempfile.TemporaryFile() as errors,
        _archive(files) as archive,
    ):
        script = (
            "sh",
            "-euc",
            PREPARE,
            "sh",
            str(group),
            str(scratch),
            init,
            *_outside_overlay(visible),
        )
        command = (*inside, "setpriv", "--pdeathsig=KILL", *unshare, *script)
        # In a session of its own, because Ctrl-C makes this PID 1 reboot.
        with subprocess.Popen(
            command,
            stdin=archive,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=ENVIRONMENT,
            start_new_session=True,
        ) as process:
            pid = b""
            try:
                assert process.stdout
                pid = process.stdout.readline()
                if not pid:
                    raise UnbootedError(_in_one_line(errors))
                yield Machine(int(pid), group), process, errors
            finally:
                if pid:
                    # By group: after the end of PID 1 its PID may be reused.
                    (group / "cgroup.kill").write_text("1")
                else:
                    process.kill()


def _wait_until_up(machine: Machine, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (state := machine.run("systemctl", "is-system-running", check=False)).stdout not in {
        "running\n",
        "degraded\n",
    }:
        if process.poll() is not None:
            raise UnbootedError(f"systemd ended with {process.returncode}: {_in_one_line(errors)}")
        if time.monotonic() > deadline:
            outputs = [
                machine.run(*command, check=False)
                for command in (
                    ("systemctl", "list-jobs"),
                    ("systemctl", "--failed"),
                    ("journalctl", "--lines=50"),
                )
            ]
            raise UnbootedError(
                "\n".join(
                    (
                        f"after {DEADLINE_SECONDS} s it is {state}",
                        *(ran.stdout + ran.stderr for ran in outputs),
                    )
                )
            )
        time.sleep(POLL_SECONDS)


@contextmanager
def _control_group() -> Generator[Path]:
    """Create a control group, and remove it once its processes have ended."""
    group = Path(tempfile.mkdtemp(prefix=f"tsfc-{os.getpid()}-", dir=_hierarchy()))
    try:
        group.chmod(0o755)
        yield group
    finally:
        wait_until(
            lambda: "populated 0" in (group / "cgroup.events").read_text(),
            "the processes of the control group have ended",
        )
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)


def _hierarchy() -> str | None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return next((place for _, place, kind, *_ in mounts if kind == "cgroup2"), None)


@contextmanager
def _archive(files: Mapping[str, str]) -> Generator[IO[bytes]]:
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, text in files.items():
                entry = tarfile.TarInfo(path.removeprefix("/"))
                content = text.encode()
                entry.size, entry.mode, entry.mtime = (
                    len(content),
                    0o755 if text.startswith("#!") else 0o644,
                    int(os.stat("/").st_mtime),
                )
                tar.addfile(entry, io.BytesIO(content))
        archive.seek(0)
        yield archive


def _outside_overlay(visible: Sequence[Path]) -> list[str]:
    """Return the directories that the machine needs outside of the overlay."""
    places = sorted({str(CHECKOUT), sys.prefix, sys.base_prefix, *map(str, visible)})
    return [
        place
        for place in places
        if os.stat(place).st_dev != os.stat("/").st_dev or Path(place).parts[1] == "tmp"
    ]


def _in_one_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    return " ".join(errors.read().decode().split()) or "it ended without a message"
