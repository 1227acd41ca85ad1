"""A second machine on this one: its systemd, booted as PID 1 of namespaces of its own, over an overlay of `/`.

Nothing is written to the machine beneath: what the booted one writes is in memory, and gone with it. It shares the kernel, so what could reach
that is shut to it: `/sys` and `/proc/sys` are read-only, and it may not load modules or set the clock.
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

from support.processes import DEADLINE_SECONDS, Ran, short_directory, wait_until

CHECKOUT = Path(__file__).parents[2]
UNITS = "/etc/systemd/system"
"Where a test's units belong."
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
"All that is started: a machine up to `basic.target`, and D-Bus."
OWN_FILES = {
    TARGET: "[Unit]\nRequires=basic.target\nWants=dbus.socket\nAfter=basic.target dbus.socket\n",
    f"{UNITS}/systemd-binfmt.service": "",
    f"{UNITS}/proc-sys-fs-binfmt_misc.automount": "",
}
"An empty unit is a masked one; binary formats are the kernel's, for all machines on it."

PREPARE = r"""
read -r pid _ </proc/self/stat                        # as it is outside: this /proc is still the one of the machine beneath
group=$1 scratch=$2 init=$3; shift 3
umask 022
echo 0 >"$group/cgroup.procs"
mount -t tmpfs tmpfs "$scratch"
cd "$scratch"
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" overlay root
cd root
# What the machine beneath has enabled, mounts and has logged is not ours.
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires etc/fstab etc/crypttab var/log/journal

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
for place; do                                         # on a file system of its own: the overlay is of one
  mkdir -p ".$place"
  mount --bind "$place" ".$place"
  mount -o remount,bind,ro ".$place"
done

pivot_root . .
umount -l .
mount --make-rshared /
tar --extract --directory /                           # from standard input; not before the links in the way lead to our own root
echo "$pid"
exec env -i container=tsfc "PATH=$PATH" unshare --cgroup setpriv --bounding-set=-sys_module,-sys_rawio,-sys_time "$init" --unit=booted.target \
  </dev/null >/dev/null
"""


class UnbootedError(Exception):
    """A machine did not come up; the text is what was seen of it."""


@dataclass(frozen=True)
class Machine:
    """A machine that runs."""

    pid: int
    "Its PID 1, as it is outside."
    group: Path
    "Its control group, as it is outside."

    def run(self, *argv: str, check: bool = True, stdin: bytes = b"") -> Ran:
        """Runs a program in it, as root, to its end; with `check` it has to succeed."""
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
        ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert not check or ran.status == 0, f"{argv}: {ran}"
        return ran

    def path(self, inside: str) -> Path:
        """Returns a path to a file of it, as it is outside."""
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
        """Returns the messages in its journal, with all that was sent until now."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--quiet", "--output=cat", *arguments).stdout.splitlines()

    def show(self, unit: str, name: str) -> str:
        """Returns a property of a unit, as `systemctl show` has it."""
        return self.run(
            "systemctl", "show", f"--property={name}", "--value", unit
        ).stdout.removesuffix("\n")

    def wait_until(self, unit: str, name: str, value: str) -> None:
        """Waits until a property of a unit has a value."""
        wait_until(lambda: self.show(unit, name) == value, f"{name}={value} of {unit}")

    def cpu_seconds(self) -> float:
        """Returns the CPU time that all its processes have taken, without those that `run` started."""
        stat = dict(line.split() for line in (self.group / "cpu.stat").read_text().splitlines())
        return int(stat["usage_usec"]) / 1e6


@contextmanager
def booted(
    *, files: Mapping[str, str] = {}, network: Path | None = None, visible: Sequence[Path] = ()
) -> Generator[Machine]:
    """Boots a machine and ends it with the block.

    It ends, too, with the thread that booted it, whatever that one died of.

    Args:
        files: texts by their absolute paths, written before it boots. What begins with `#!` may be executed; an empty unit is masked.
        network: the path of the network namespace to use; without it a new one, where only the loopback is up.
        visible: directories that are there as they are outside, to be read, wherever they are.
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
    """Says in one line why this machine can boot none, if so."""
    if os.geteuid() != 0:
        return "only root may boot a machine"
    for program in PROGRAMS:
        if shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
            return f"booting a machine takes {program}"
    if not Path(SYSTEMD).exists():
        return f"booting a machine takes {SYSTEMD}"
    if _hierarchy() is None:
        return "booting a machine takes a cgroup2 file system"
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
    """Prepares a machine and starts its PID 1; gives, too, the process outside that ends with it, and what was said on standard error."""
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
            *_beside_the_root(visible),
        )
        command = (*inside, "setpriv", "--pdeathsig=KILL", *unshare, *script)
        # A session of its own: the terminal's Ctrl-C is none for this PID 1, which would reboot.
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
                    # The processes and no others, even where PID 1 has ended and its number is another's.
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
            seen = [
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
                        *(ran.stdout + ran.stderr for ran in seen),
                    )
                )
            )
        time.sleep(POLL_SECONDS)


@contextmanager
def _control_group() -> Generator[Path]:
    """Makes a control group, and removes it once its processes have ended."""
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


def _beside_the_root(visible: Sequence[Path]) -> list[str]:
    """Returns what running the checkout takes, and what else is wanted, that the booted machine would not have from the overlay."""
    places = sorted({str(CHECKOUT), sys.prefix, sys.base_prefix, *map(str, visible)})
    return [
        place
        for place in places
        if os.stat(place).st_dev != os.stat("/").st_dev or Path(place).parts[1] == "tmp"
    ]


def _in_one_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    return " ".join(errors.read().decode().split()) or "it ended, and said nothing"
