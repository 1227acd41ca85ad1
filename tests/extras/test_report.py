"""The report is a page that Chromium opens, draws and answers on, without a word in its console and without a network."""

from __future__ import annotations

import base64
import json
import random
import re
import subprocess
import sys
from collections.abc import Generator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from support.captures import START, TIMELINE, fault, hectic, seen, text
from support.processes import complaints, run, wait_until
from support.required import program
from support.statuses import PATHS, peer
from tsfc.core.evaluation.observation import instant, parse, status_of
from tsfc.core.evaluation.statistics import Statistics, update
from tsfc.core.evaluation.timeline import Timeline, record
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.offline.host import OfflineHost
from tsfc.offline.report import document as pages
from tsfc.offline.report import report

Browser = Any
"Selenium's `Chrome`; half of its methods have no types."

HELL = '</script x><script>document.title = "broken"</script><img src=x onerror="document.title=1">'
MEGABYTES = 5
SECONDS_TO_DRAW = 1.0

PIXELS = """
function coloured(canvas) {
    const copy = document.createElement("canvas"), seen = {};
    copy.width = canvas.width; copy.height = canvas.height;
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    const data = context.getImageData(0, 0, copy.width, copy.height).data;
    for (let at = 0; at < data.length; at += 4) { const key = [data[at], data[at + 1], data[at + 2]].join(","); seen[key] = (seen[key] || 0) + 1; }
    return seen;
}
"""
"Counts the pixels of each colour, in a copy: a browser has something to say about a canvas that is read again and again."
COLOURS = f'{PIXELS} return coloured(document.getElementById("chart"));'
DIRECT, DERP, RESTART = "0,158,115", "213,94,0", "179,0,94"


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser]:
    """A headless Chromium that resolves no name, so asks nobody for anything."""
    options = ChromeOptions()
    options.binary_location = program("chromium", "chromium")
    quiet = (
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND",
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


def _opened(browser: Browser, path: Path, theme: str = "light") -> None:
    """Opens a report and holds it to what every report has to do: no word in the console, no request but the one for itself."""
    browser.get_log("performance")
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": theme}]},
    )
    browser.get(path.as_uri())
    wait_until(
        lambda: browser.execute_script(
            "return new Promise(done => requestAnimationFrame(() => done(true)))"
        ),
        "the page is drawn",
    )
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked == [path.as_uri()]


def _report(box: Path, *arguments: str) -> Path:
    path = box / "report.html"
    ran = run(*arguments, "--report", str(path))
    assert (ran.status, ran.stderr) == (0, "")
    return path


def _stuck(box: Path, name: str = "nas") -> str:
    capture = box / "stuck.ndjson"
    observations = [
        seen(START + 60 * number, peer(name, "derp"), peer("rpi3")) for number in range(60)
    ]
    observations[30] = fault(START + 1800, "asking tailscaled: Connection refused")
    capture.write_text(text([*observations[:50], *observations[56:]]))
    return str(capture)


def _tables(browser: Browser) -> list[list[str]]:
    return [
        [row.text for row in table.find_elements(By.TAG_NAME, "tr")]
        for table in browser.find_elements(By.TAG_NAME, "table")
    ]


def _said(browser: Browser) -> str:
    return str(browser.find_element(By.ID, "selection").text)


def _press(browser: Browser, *keys: str) -> str:
    """Presses keys on the timeline; returns what it then says."""
    browser.find_element(By.ID, "lanes").send_keys(*keys)
    return _said(browser)


def test_a_replay_is_drawn(box: Path, chromium: Browser) -> None:
    _opened(chromium, _report(box, "replay", _stuck(box)))
    colours = chromium.execute_script(COLOURS)
    assert all(colours.get(colour, 0) > 20 for colour in (DIRECT, DERP, RESTART)), colours
    screenshot = base64.b64decode(chromium.get_screenshot_as_base64())
    assert screenshot.startswith(b"\x89PNG")
    assert len(screenshot) > 20_000
    facts = chromium.find_element(By.CLASS_NAME, "facts").text
    assert "restarts\n5" in facts
    assert "a recording cannot show" in chromium.find_element(By.CLASS_NAME, "note").text
    assert _tables(chromium)[-1][1].startswith("nas ")


def test_it_is_read_by_keyboard(box: Path, chromium: Browser) -> None:
    _opened(chromium, _report(box, "replay", _stuck(box)))
    assert _press(chromium, Keys.ARROW_DOWN).startswith(
        "nas: relay (DERP) · watchdog: on relay from here on · 2027-01-15 08:00:00Z to 2027-01-15 08:01:00Z, 1 min"
    )
    assert "waiting for the threshold" in _press(chromium, Keys.ARROW_RIGHT)
    assert "restart of tailscaled" in _press(chromium, Keys.ARROW_RIGHT)
    assert "in the cooldown" in _press(chromium, "+", Keys.ARROW_RIGHT)
    assert _press(chromium, Keys.ARROW_DOWN).startswith("rpi3: direct")
    assert "not seen" in _press(chromium, Keys.ARROW_RIGHT)
    assert _press(chromium, "0", Keys.ARROW_UP, Keys.ARROW_UP).startswith("nas: ")


def _hover(browser: Browser, x: float, y: float) -> str:
    """Puts the pointer on the chart; returns what is shown there."""
    area = browser.execute_script(
        "const a = document.getElementById('chart').getBoundingClientRect(); return [a.left, a.top, a.width]"
    )
    browser.execute_cdp_cmd(
        "Input.dispatchMouseEvent",
        {"type": "mouseMoved", "x": area[0] + x * area[2], "y": area[1] + y},
    )
    tip = browser.find_element(By.ID, "tip")
    return tip.text if tip.is_displayed() else ""


def test_hovering_shows_time_path_and_reason(box: Path, chromium: Browser) -> None:
    _opened(chromium, _report(box, "replay", _stuck(box)))
    shown = _hover(chromium, 0.3, 58)
    assert re.fullmatch(
        r"nas: relay \(DERP\)\nwatchdog: on relay .*\n2027-01-15 08:\d\d:00Z to 2027-01-15 08:\d\d:00Z, .*",
        shown,
    )
    assert _hover(chromium, 0.3, 78).startswith("rpi3: direct")
    assert any("Connection refused" in _hover(chromium, x / 400, 34) for x in range(200, 260))
    assert any("gap: no observation" in _hover(chromium, x / 400, 34) for x in range(330, 390))
    assert _hover(chromium, 0.02, 58) == ""


def test_the_filter_leaves_the_peers_of_that_name(box: Path, chromium: Browser) -> None:
    _opened(chromium, _report(box, "replay", _stuck(box)))
    chromium.find_element(By.ID, "filter").send_keys("RPI")
    wait_until(lambda: not chromium.execute_script(COLOURS).get(DERP), "the lane of nas is gone")
    assert _press(chromium, Keys.ARROW_DOWN).startswith("rpi3")


def test_a_dark_page_is_dark(box: Path, chromium: Browser) -> None:
    path = _report(box, "replay", _stuck(box))
    _opened(chromium, path, "dark")
    most = max(chromium.execute_script(COLOURS).items(), key=lambda item: item[1])
    assert most[0] == "22,24,28"
    _opened(chromium, path)
    most = max(chromium.execute_script(COLOURS).items(), key=lambda item: item[1])
    assert most[0] == "255,255,255"


def test_it_is_printed_with_all_lanes(box: Path, chromium: Browser) -> None:
    capture = box / "many.ndjson"
    capture.write_text(
        text(
            seen(START + 60 * number, *(peer(f"peer-{one}") for one in range(200)))
            for number in range(3)
        )
    )
    _opened(chromium, _report(box, "replay", str(capture)))
    one_screen = chromium.execute_script(COLOURS)[DIRECT]
    chromium.execute_script(
        PIXELS
        + 'addEventListener("beforeprint", () => { window.strips = [...document.querySelectorAll("#paper canvas")].map(coloured); });'
    )
    assert base64.b64decode(chromium.print_page()).startswith(b"%PDF")
    strips = chromium.execute_script("return window.strips")
    assert [strip[DIRECT] > one_screen / 2 for strip in strips] == [True] * 5
    assert chromium.execute_script("return document.querySelectorAll('#paper canvas').length") == 0
    assert chromium.get_log("browser") == []


def test_names_from_hell_stay_text(box: Path, chromium: Browser) -> None:
    capture = box / f"{HELL.replace('/', '')}.ndjson"
    capture.write_text(
        text(
            seen(START + 60 * number, peer("x", "derp", DNSName="", HostName=HELL))
            for number in range(20)
        )
    )
    _opened(chromium, _report(box, "replay", str(capture)))
    assert chromium.title.startswith("Replay of ")
    assert chromium.find_elements(By.TAG_NAME, "img") == []
    assert "<img" in _press(chromium, Keys.ARROW_DOWN)


def test_a_comparison_and_distributions_are_there(box: Path, chromium: Browser) -> None:
    _opened(
        chromium, _report(box, "replay", str(TIMELINE), "--compare", "max-relay-seconds=30,600")
    )
    assert [row.split()[0] for row in _tables(chromium)[0][1:]] == [
        "max-relay-seconds=30",
        "max-relay-seconds=600",
    ]
    _opened(
        chromium,
        _report(
            box,
            "simulate",
            "restart-cures",
            "--days",
            "1",
            "--runs",
            "4",
            "--compare",
            "cooldown-seconds=600,3600",
        ),
    )
    headings = [heading.text for heading in chromium.find_elements(By.TAG_NAME, "h3")]
    assert headings == [
        "max-relay-seconds=600 cooldown-seconds=600",
        "max-relay-seconds=600 cooldown-seconds=3600",
    ]
    said = run(
        "simulate",
        "restart-cures",
        "--days",
        "1",
        "--runs",
        "4",
        "--compare",
        "cooldown-seconds=600,3600",
    ).stdout
    rows = [line.split() for line in said.splitlines() if line.startswith("restarts")]
    assert [
        row.split() for table in _tables(chromium) for row in table if row.startswith("restarts")
    ] == rows
    assert (
        len(chromium.find_elements(By.CSS_SELECTOR, "svg .median"))
        == len(chromium.find_elements(By.CSS_SELECTOR, "tbody svg"))
        > 20
    )
    _opened(
        chromium,
        _report(
            box,
            "simulate",
            "restart-cures",
            "--days",
            "1",
            "--compare",
            "cooldown-seconds=600,3600",
        ),
    )
    assert [row.split()[1] for row in _tables(chromium)[0][1:]] == [
        "cooldown-seconds=600",
        "cooldown-seconds=3600",
    ]


def test_the_report_of_a_simulation_is_the_same_each_time(box: Path) -> None:
    once = _report(box, "simulate", "flapping", "--days", "1").read_bytes()
    assert _report(box, "simulate", "flapping", "--days", "1").read_bytes() == once


def test_what_is_printed_is_the_same_with_a_report(box: Path) -> None:
    assert (
        run("replay", str(TIMELINE), "--report", str(box / "r.html")).stdout
        == run("replay", str(TIMELINE)).stdout
    )


def test_five_hundred_peers_over_a_month_stay_usable(box: Path, chromium: Browser) -> None:
    """As many changes as a month of 500 peers may have, on fewer observations: what is held is bounded, and so is the page."""
    chance = random.Random("month")  # noqa: S311 - no secret
    names = [f"peer-{number}" for number in range(500)]
    timeline, statistics, policy = Timeline(), Statistics(), ThresholdPolicy()
    host = OfflineHost()
    paths = dict.fromkeys(names, "direct")
    for number in range(700):
        for name in chance.sample(names, 250):
            paths[name] = chance.choice(list(PATHS))
        observation = parse(
            json.dumps(
                seen(START + 3700 * number, *(peer(name, path) for name, path in paths.items()))
            ).encode()
        ).unwrap()
        observed = status_of(observation)
        run, lines = host.run(observed, now=instant(observation), policy=policy)
        update(statistics, run)
        record(timeline, run, observed, lines, statistics)
    assert timeline.resolution > 1
    path = box / "month.html"
    assert (
        report.write(
            "test",
            str(path),
            pages.of_one("A month", policy, statistics, timeline, extra={}, notes=()),
        )
        == 0
    )
    assert path.stat().st_size < MEGABYTES * 10**6
    _opened(chromium, path)
    slowest = chromium.execute_async_script("""
        const done = arguments[0], box = document.getElementById("lanes"), times = [];
        const draw = (left) => {
            if (!left) { done(Math.max(...times)); return; }
            const start = performance.now();
            box.scrollTop = left * 900;
            box.dispatchEvent(new KeyboardEvent("keydown", { key: left % 2 ? "-" : "+" }));
            requestAnimationFrame(() => requestAnimationFrame(() => { times.push(performance.now() - start); draw(left - 1); }));
        };
        draw(8);
    """)
    assert slowest / 1000 < SECONDS_TO_DRAW
    assert _press(chromium, Keys.ARROW_DOWN) != ""


# What goes wrong


def test_without_jinja_one_line_says_what_to_install(box: Path) -> None:
    """Before the work, not after it."""
    (box / "jinja2.py").write_text("raise ImportError('not here')\n")
    for tool in (("replay", str(TIMELINE)), ("simulate", "healthy")):
        argv = [sys.executable, "-m", "tsfc", *tool, "--report", str(box / "r.html")]
        ran = subprocess.run(
            argv, capture_output=True, text=True, env={"PYTHONPATH": str(box)}, check=False
        )
        assert (ran.returncode, ran.stdout) == (1, "")
        assert (
            ran.stderr
            == f"tsfc {tool[0]}: --report needs Jinja, which is not installed; install tsfc[report]\n"
        )


@pytest.mark.parametrize(
    ("where", "why"), [("none/r.html", "No such file"), ("taken", "Is a directory")]
)
def test_a_report_that_cannot_be_written_is_one_line_after_the_output(
    box: Path, where: str, why: str
) -> None:
    (box / "taken").mkdir()
    ran = run("replay", str(TIMELINE), "--report", str(box / where))
    assert ran.status == 1
    assert ran.stdout == run("replay", str(TIMELINE)).stdout
    assert [why in complaint for complaint in complaints("replay", ran)] == [True]
    assert list(box.iterdir()) == [box / "taken"]


def test_several_captures_have_no_report(box: Path) -> None:
    ran = run("replay", str(TIMELINE), str(TIMELINE), "--report", str(box / "r.html"))
    assert (ran.status, ran.stdout) == (2, "")
    assert len(complaints("replay", ran)) == 1


class _Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            f"{tag} {name}"
            for name, value in attrs
            if name in {"src", "href", "action", "data"} and value is not None
        ]


def test_a_page_refers_to_nothing_outside_itself(box: Path) -> None:
    links = _Links()
    html = _report(box, "replay", _capture(box, hectic(1))).read_text()
    links.feed(html)
    assert links.found == []
    assert re.search(
        r"default-src 'none'; style-src 'sha256-[^']+'; script-src 'sha256-[^']+'\"", html
    )
    assert not re.search(r"https?://", html)


def _capture(box: Path, observations: list[dict[str, Any]]) -> str:
    (box / "c.ndjson").write_text(text(observations))
    return str(box / "c.ndjson")
