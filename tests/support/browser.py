"""Headless Chromium, and the colors that a page has drawn."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from support.required import program

Browser = Any
"Selenium's `Chrome`; half of its methods have no types."

PIXELS = """
function pixels(canvas) {
    const copy = document.createElement("canvas"), counts = {};
    copy.width = canvas.width;
    copy.height = canvas.height;
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const data = context.getImageData(0, 0, copy.width, copy.height).data;
    for (let at = 0; at < data.length; at += 4) {
        const color = [data[at], data[at + 1], data[at + 2]].join(",");
        counts[color] = (counts[color] || 0) + 1;
    }
    return counts;
}
"""
"Counts pixels by color, in a copy: Chromium warns about a canvas that is read often."
COLORS = f'{PIXELS} return pixels(document.getElementById("chart"));'
DIRECT, DERP, RESTART = "0,158,115", "213,94,0", "179,0,94"


@contextmanager
def chromium() -> Generator[Browser]:
    """Headless Chromium without name resolution. It reaches only 127.0.0.1."""
    options = ChromeOptions()
    options.binary_location = program("chromium", "chromium")
    quiet = (
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    )
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1400,1100",
        *quiet,
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser: Browser = Chrome(
        options=options, service=Service(program("chromedriver", "chromium-driver"))
    )
    try:
        yield browser
    finally:
        browser.quit()
