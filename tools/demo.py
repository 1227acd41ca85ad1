"""Play a day of a simulated tailnet in a minute: `make demo`.

A stand-in plays `demo.toml`, the agent runs the exporter and the watchdog, and `tsfc
peers --watch` shows the peers. All files are in a temporary directory. The agent finds
no program except for a fake systemctl, which restarts the simulated tailscaled.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

SCENARIO = Path(__file__).with_name("demo.toml")
SPEED = 24 * 60
"A day in a minute."
TSFC = (sys.executable, "-m", "tsfc")
UNIT = "simulated-tailscaled.service"
NEWS = ("DETECTED", "RESTART", "RECOVERED", "HELD")
"Beginnings of the watchdog's lines that are printed at the end."
LINES = 15
"Maximum number of these lines."
PATIENCE_SECONDS = 10.0
"Timeout for the start and for the end of a process."
POLICY = "--max-relay-seconds=1 --cooldown-seconds=5 --exclude-peer=lte"
"Options of the watchdog. A second is 24 minutes of the simulated day."


def main() -> int:
    """Play until the user ends it, and return the exit status."""
    parser = argparse.ArgumentParser(description="Play a day of a simulated tailnet in a minute.")
    parser.add_argument(
        "--listen", metavar="IP:PORT", help="serve the agent's page, too, as `tsfc agent` does"
    )
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        with tempfile.TemporaryDirectory(prefix="tsfc-demo-") as directory:
            return _play(Path(directory), options.listen)
    except KeyboardInterrupt:
        return 130


def _end(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def _play(directory: Path, listen: str | None) -> int:
    socket, metrics, log = (directory / name for name in ("socket", "metrics", "log"))
    content = (f"--scenario={SCENARIO}", f"--speed={SPEED}", f"--socket={socket}")
    with _started("stand-in", *content, stdout=subprocess.PIPE) as stand_in:
        if stand_in.stdout is None or not stand_in.stdout.readline():
            return 1
        metrics.mkdir()
        programs = _fake_systemctl(directory / "bin", stand_in.pid)
        arguments = (
            *("--jobs=exporter,watchdog", "--exporter-interval=1s", "--watchdog-interval=1s"),
            *(f"--metrics-dir={metrics}", f"--state-dir={directory}/state", f"--socket={socket}"),
            f"--watchdog-args=--unit={UNIT} {POLICY}",
            *(() if listen is None else (f"--listen={listen}",)),
        )
        verdicts = metrics / "tailscale-watchdog.prom"
        with (
            log.open("w") as lines,
            _started("agent", *arguments, stdout=lines, env={"PATH": str(programs)}) as agent,
        ):
            if not _wait_for(verdicts.with_suffix(".json"), agent):
                print(log.read_text(), end="", file=sys.stderr)
                return 1
            if listen is not None:
                _show_address(listen)
            status = _watch(
                *(f"--socket={socket}", "--source=localapi", f"--watchdog-metrics={verdicts}")
            )
        news = [line for line in log.read_text().splitlines() if line.startswith(NEWS)]
        print("The last news of the watchdog:", *news[-LINES:], sep="\n")
    return status


def _fake_systemctl(programs: Path, pid: int) -> Path:
    """Write a systemctl that restarts the simulated tailscaled. Return `programs`."""
    programs.mkdir()
    systemctl = programs / "systemctl"
    systemctl.write_text(f'#!/bin/sh\n[ "$1" = restart ] && kill -HUP {pid}\n')
    systemctl.chmod(0o755)
    return programs


@contextmanager
def _started(
    *arguments: str, stdout: int | IO[str], env: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[str]]:
    """Run tsfc in the background. Ctrl-C does not reach it; it ends with the block."""
    process = subprocess.Popen(
        (*TSFC, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stdout if isinstance(stdout, IO) else None,
        env=env,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """End a process: ask it, and kill it if it does not end in time."""
    process.terminate()
    try:
        process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(path: Path, process: subprocess.Popen[str]) -> bool:
    """Wait until a process has written a file; return whether it has."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return path.exists()


def _show_address(listen: str) -> None:
    print(f"The agent's page is http://{listen}/", flush=True)
    if sys.stdin.isatty():
        input("Press Enter to watch the peers here. ")


def _watch(*arguments: str) -> int:
    """Show the peers until the user ends it. That is no error."""
    watch = subprocess.Popen((*TSFC, "peers", "--watch=1", *arguments), text=True)
    try:
        return watch.wait()
    except KeyboardInterrupt:
        # Ctrl-C reaches it, too.
        watch.wait(PATIENCE_SECONDS)
        return 0
    finally:
        _stop(watch)


if __name__ == "__main__":
    sys.exit(main())
