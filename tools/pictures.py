"""Make the pictures of the docs again: `make pictures`. It takes two minutes.

`docs/report.png` is the report of a simulation. `docs/live.png` is the live page of an
agent. Its tailscaled is `tsfc stand-in`, which plays a tailnet faster than real time.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from selenium.webdriver.common.by import By

from support.browser import Browser, chromium

DOCS = Path(__file__).parents[1] / "docs"
TSFC = str(Path(sys.executable).with_name("tsfc"))
ADDRESS = "127.0.0.1:9199"
SPEED = 10
LIMIT_SECONDS = 180.0
"Time in which a moment has to come."
TAILNET = """
summary = "Two peers are stuck on relay, one after the other."
lasts = "1d"
[[peers]]
name = "nas"
[[peers]]
name = "rpi3"
[[peers]]
name = "vps"
[[events]]
kind = "stuck"
at = "4min"
lasts = "8h"
peers = ["nas"]
restart = "cures"
[[events]]
kind = "stuck"
at = "13min"
lasts = "8h"
peers = ["rpi3"]
restart = "cures"
"""


def main() -> None:
    """Make both pictures."""
    with tempfile.TemporaryDirectory(prefix="tsfc-") as name, chromium() as browser:
        box = Path(name)
        report(box, browser)
        live(box, browser)


def report(box: Path, browser: Browser) -> None:
    """Make the picture of a report."""
    page = box / "report.html"
    command = (TSFC, "simulate", "control-outage", f"--report={page}")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    browser.get(page.as_uri())
    save(browser, "report.png", height=760)


def live(box: Path, browser: Browser) -> None:
    """Make the picture of the live page: one restart has helped, another follows."""
    (box / "tailnet.toml").write_text(TAILNET)
    (box / "metrics").mkdir()
    tailnet = ("--scenario", f"{box}/tailnet.toml", "--socket", f"{box}/s", "--speed", str(SPEED))
    with started(TSFC, "stand-in", *tailnet) as stand_in:
        # What restarts tailscaled, for the watchdog.
        systemctl = box / "systemctl"
        systemctl.write_text(f"#!/bin/sh\nkill -HUP {stand_in.pid}\n")
        systemctl.chmod(0o755)
        while not (box / "s").exists():
            time.sleep(0.1)
        agent = (
            *(TSFC, "agent", "--jobs=exporter,keepalive,watchdog", f"--socket={box}/s"),
            *(f"--metrics-dir={box}/metrics", f"--state-dir={box}/state", f"--listen={ADDRESS}"),
            *("--exporter-interval=1s", "--keepalive-interval=1s", "--watchdog-interval=1s"),
            "--watchdog-args=--unit=x --max-relay-seconds=15 --cooldown-seconds=20",
        )
        with started(*agent, programs=box):
            while not (box / "metrics/tailscale-watchdog.json").exists():
                time.sleep(0.1)
            browser.get(f"http://{ADDRESS}/")
            wait_for(browser, "attempts", ": helped")
            wait_for(browser, "lines", "next restart in 6s, because of rpi3")
            save(browser, "live.png", height=1080)


@contextmanager
def started(*command: str, programs: Path | None = None) -> Generator[subprocess.Popen[bytes]]:
    """Run a command until the block ends. `programs` come first on its `PATH`."""
    path = os.environ["PATH"] if programs is None else f"{programs}:{os.environ['PATH']}"
    with subprocess.Popen(command, env={**os.environ, "PATH": path}) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_for(browser: Browser, name: str, text: str) -> None:
    """Wait until an element of the page has a text."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while text not in browser.find_element(By.ID, name).text:
        if time.monotonic() > deadline:
            sys.exit(f"pictures: the page never said {text!r}; compare TAILNET with the scenarios")
        time.sleep(0.1)


def save(browser: Browser, name: str, *, height: int) -> None:
    """Write what the browser shows, 1200 pixels wide, in light colors."""
    size = {"width": 1200, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    (DOCS / name).write_bytes(base64.b64decode(browser.get_screenshot_as_base64()))


if __name__ == "__main__":
    main()
