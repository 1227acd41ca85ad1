"""The report of `replay` and `simulate`, opened in Chromium.

Each page must draw and react without a message in the console and without a request.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from support import irregular
from support.browser import COLORS, DERP, DIRECT, PIXELS, RESTART, Browser
from support.captures import START, TIMELINE, fault, hectic, seen, text
from support.processes import error_lines, run, wait_until
from support.statuses import PATHS, peer
from tsfc.core.evaluation.observation import instant, parse, status_of
from tsfc.core.evaluation.statistics import Statistics, update
from tsfc.core.evaluation.timeline import Timeline, record
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.offline.host import OfflineHost
from tsfc.offline.report import assets, report
from tsfc.offline.report import document as pages

HOSTILE_NAME = (
    '</script x><script>document.title = "broken"</script><img src=x onerror="document.title=1">'
)
MAX_BYTES = 5_000_000
MAX_DRAW_SECONDS = 1.0


def _open(browser: Browser, path: Path, theme: str = "light") -> None:
    """Open a report; check that it logs nothing and requests nothing else."""
    browser.get("about:blank")  # a live page of an earlier test asks a server that has gone
    browser.get_log("browser")
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
    requested = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert requested == [path.as_uri()]


def _report(box: Path, *arguments: str) -> Path:
    path = box / "report.html"
    result = run(*arguments, "--report", str(path))
    assert (result.status, result.stderr) == (0, "")
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


def _selection(browser: Browser) -> str:
    return str(browser.find_element(By.ID, "selection").text)


def _press(browser: Browser, *keys: str) -> str:
    """Press keys on the timeline; return the text about the selection."""
    browser.find_element(By.ID, "lanes").send_keys(*keys)
    return _selection(browser)


def test_a_replay_is_drawn(box: Path, chromium: Browser) -> None:
    _open(chromium, _report(box, "replay", _stuck(box)))
    colors = chromium.execute_script(COLORS)
    assert all(colors.get(color, 0) > 20 for color in (DIRECT, DERP, RESTART)), colors
    screenshot = base64.b64decode(chromium.get_screenshot_as_base64())
    assert screenshot.startswith(b"\x89PNG")
    assert len(screenshot) > 20_000
    tiles = chromium.find_element(By.CLASS_NAME, "tiles").text.splitlines()
    assert tiles == ["restarts", "5", "on relay", "59m", "direct", "49.6 %"]
    assert "observations" not in chromium.find_element(By.TAG_NAME, "header").text
    chromium.find_element(By.TAG_NAME, "summary").click()
    assert "observations\n54\n" in chromium.find_element(By.TAG_NAME, "header").text
    assert "a recording cannot show" in chromium.find_element(By.CLASS_NAME, "note").text
    assert _tables(chromium)[-1][1].startswith("nas ")


def test_the_head_says_which_node_when_and_by_which_version(box: Path, chromium: Browser) -> None:
    capture = box / "c.ndjson"
    own = {"Self": {"DNSName": "alpha.example.ts.net."}}
    observations = [seen(START + 3600 * number, peer("nas"), **own) for number in range(3)]
    capture.write_text(text(observations))
    _open(chromium, _report(box, "replay", str(capture)))
    assert chromium.find_element(By.CLASS_NAME, "subtitle").text == (
        "node alpha · 2027-01-15 08:00:00Z to 10:00:00Z (2h) · "
        f"documented max-relay-seconds=600 cooldown-seconds=600 · {assets.program()}"
    )
    _open(chromium, _report(box, "simulate", "healthy", "--days", "2"))
    assert chromium.find_element(By.TAG_NAME, "h1").text == "Simulation of healthy"
    assert chromium.find_element(By.CLASS_NAME, "subtitle").text.startswith("2026-01-01 00:00:00Z")


def _calm(box: Path) -> str:
    capture = box / "calm.ndjson"
    calm = [peer(f"calm-{number}") for number in range(17)]
    capture.write_text(
        text(seen(START + 60 * number, peer("nas", "derp"), *calm) for number in range(20))
    )
    return str(capture)


def _lanes_height(browser: Browser) -> int:
    return int(browser.execute_script("return document.getElementById('chart').clientHeight"))


def test_the_keyboard_opens_the_row_of_peers_that_were_never_on_relay(
    box: Path, chromium: Browser
) -> None:
    _open(chromium, _report(box, "replay", _calm(box)))
    closed = _lanes_height(chromium)
    selected = _press(chromium, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert selected.startswith("17 peers always direct · 17 direct · 2027-01-15 08:00:00Z to ")
    assert selected.endswith(" · Enter shows them")
    assert _press(chromium, Keys.ENTER).endswith(" · Enter hides them")
    wait_until(lambda: _lanes_height(chromium) > closed + 200, "the peers are shown")
    assert _press(chromium, Keys.ARROW_DOWN).startswith("calm-0: direct")
    assert _press(chromium, Keys.ARROW_UP, Keys.SPACE).endswith(" · Enter shows them")
    wait_until(lambda: _lanes_height(chromium) == closed, "they are hidden again")


def test_the_row_of_peers_has_a_button_for_screen_readers_and_the_pointer(
    box: Path, chromium: Browser
) -> None:
    _open(chromium, _report(box, "replay", _calm(box)))
    closed = _lanes_height(chromium)
    button = chromium.find_element(By.ID, "calm")
    assert (button.accessible_name, button.aria_role) == ("17 peers always direct", "button")
    assert button.get_attribute("aria-expanded") == "false"
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-expanded") == "true"
    wait_until(lambda: _lanes_height(chromium) > closed + 200, "the peers are shown")

    chart = chromium.find_element(By.ID, "chart")
    name = ActionChains(chromium).move_to_element_with_offset(
        chart, 40 - chart.size["width"] // 2, 48 + 26 + 13 - chart.size["height"] // 2
    )
    name.click().perform()
    assert button.get_attribute("aria-expanded") == "false"
    wait_until(lambda: _lanes_height(chromium) == closed, "they are hidden again")

    chromium.find_element(By.ID, "filter").send_keys("calm-1")
    assert not button.is_displayed()
    assert _press(chromium, Keys.ARROW_DOWN).startswith("calm-1: direct")


def test_the_legend_explains_only_what_is_there(box: Path, chromium: Browser) -> None:
    _open(chromium, _report(box, "replay", _stuck(box)))
    items = [item.text for item in chromium.find_elements(By.CSS_SELECTOR, "#legend li")]
    assert items == [
        *("direct", "relay (DERP)"),
        *("COOLDOWN", "DETECTED", "RESTART"),
        *("gap", "fault"),
    ]


def test_no_marker_hides_a_short_relay(box: Path, chromium: Browser) -> None:
    """It is as narrow as a pixel, and its markers are above it."""
    capture = box / "short.ndjson"
    observations = [
        seen(START + 60 * number, peer("nas", "derp" if number == 300 else "direct"))
        for number in range(600)
    ]
    capture.write_text(text(observations))
    _open(chromium, _report(box, "replay", str(capture)))
    assert chromium.execute_script(COLORS).get(DERP, 0) >= 12


def test_the_keyboard_selects_peers_and_changes(box: Path, chromium: Browser) -> None:
    _open(chromium, _report(box, "replay", _stuck(box)))
    assert _press(chromium, Keys.ARROW_DOWN).startswith(
        "nas: relay (DERP) · watchdog: on relay from here on · "
        "2027-01-15 08:00:00Z to 2027-01-15 08:01:00Z, 1 min"
    )
    assert "waiting for the threshold" in _press(chromium, Keys.ARROW_RIGHT)
    assert "restart of tailscaled" in _press(chromium, Keys.ARROW_RIGHT)
    assert "in the cooldown" in _press(chromium, "+", Keys.ARROW_RIGHT)
    assert _press(chromium, Keys.ARROW_DOWN).startswith("rpi3: direct")
    assert "not seen" in _press(chromium, Keys.ARROW_RIGHT)
    assert _press(chromium, "0", Keys.ARROW_UP, Keys.ARROW_UP).startswith("nas: ")


def _hover(browser: Browser, x: float, y: float) -> str:
    """Move the pointer to a point of the chart; return the text of the tip."""
    area = browser.execute_script(
        "const area = document.getElementById('chart').getBoundingClientRect();"
        "return [area.left, area.top, area.width]"
    )
    browser.execute_cdp_cmd(
        "Input.dispatchMouseEvent",
        {"type": "mouseMoved", "x": area[0] + x * area[2], "y": area[1] + y},
    )
    tip = browser.find_element(By.ID, "tip")
    return tip.text if tip.is_displayed() else ""


def test_hovering_shows_time_path_and_reason(box: Path, chromium: Browser) -> None:
    _open(chromium, _report(box, "replay", _stuck(box)))
    tip = _hover(chromium, 0.35, 58)
    assert re.fullmatch(
        r"nas: relay \(DERP\)\nwatchdog: on relay .*\n"
        r"2027-01-15 08:\d\d:00Z to 2027-01-15 08:\d\d:00Z, .*",
        tip,
    )
    assert _hover(chromium, 0.3, 78).startswith("rpi3: direct")
    assert any("Connection refused" in _hover(chromium, x / 400, 34) for x in range(200, 260))
    assert any("gap: no observation" in _hover(chromium, x / 400, 34) for x in range(330, 390))
    assert _hover(chromium, 0.02, 58) == ""


def test_the_filter_keeps_only_peers_with_that_name(box: Path, chromium: Browser) -> None:
    _open(chromium, _report(box, "replay", _stuck(box)))
    chromium.find_element(By.ID, "filter").send_keys("RPI")
    wait_until(lambda: not chromium.execute_script(COLORS).get(DERP), "the lane of nas is gone")
    assert _press(chromium, Keys.ARROW_DOWN).startswith("rpi3")


def test_the_page_follows_the_dark_theme(box: Path, chromium: Browser) -> None:
    path = _report(box, "replay", _stuck(box))
    _open(chromium, path, "dark")
    most = max(chromium.execute_script(COLORS).items(), key=lambda item: item[1])
    assert most[0] == "22,24,28"
    _open(chromium, path)
    most = max(chromium.execute_script(COLORS).items(), key=lambda item: item[1])
    assert most[0] == "255,255,255"


def test_on_a_phone_the_chart_comes_first(box: Path, chromium: Browser) -> None:
    path = _report(box, "replay", _stuck(box))
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        _open(chromium, path)
        top, bottom, facts, page = chromium.execute_script(
            "const place = (id) => document.querySelector(id).getBoundingClientRect();"
            "const chart = place('#lanes');"
            "return [chart.top, chart.bottom, place('.facts').top,"
            " document.documentElement.scrollWidth]"
        )
        assert 0 < top < bottom < facts
        assert page <= 360
        assert chromium.execute_script(COLORS)[DERP] > 1000
        assert _press(chromium, Keys.ARROW_DOWN).startswith("nas: ")
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_all_lanes_are_printed(box: Path, chromium: Browser) -> None:
    capture = box / "many.ndjson"
    capture.write_text(
        text(
            seen(START + 60 * number, *(peer(f"peer-{one}") for one in range(200)))
            for number in range(3)
        )
    )
    _open(chromium, _report(box, "replay", str(capture)))
    one_screen = chromium.execute_script(COLORS)[DIRECT]
    chromium.execute_script(
        PIXELS
        + """
        addEventListener("beforeprint", () => {
            window.strips = [...document.querySelectorAll("#paper canvas")].map(pixels);
        });
        """
    )
    assert base64.b64decode(chromium.print_page()).startswith(b"%PDF")
    strips = chromium.execute_script("return window.strips")
    assert [strip[DIRECT] > one_screen / 2 for strip in strips] == [True] * 5
    assert chromium.execute_script("return document.querySelectorAll('#paper canvas').length") == 0
    assert chromium.get_log("browser") == []


def test_markup_in_names_stays_text(box: Path, chromium: Browser) -> None:
    capture = box / f"{HOSTILE_NAME.replace('/', '')}.ndjson"
    capture.write_text(
        text(
            seen(
                START + 60 * number,
                peer("x", "derp", DNSName="", HostName=HOSTILE_NAME),
                Self={"DNSName": "", "HostName": HOSTILE_NAME},
            )
            for number in range(20)
        )
    )
    _open(chromium, _report(box, "replay", str(capture)))
    assert chromium.title.startswith("Replay of ")
    assert chromium.find_elements(By.TAG_NAME, "img") == []
    assert "<img" in chromium.find_element(By.CLASS_NAME, "subtitle").text
    assert "<img" in _press(chromium, Keys.ARROW_DOWN)


def test_comparison_and_distributions_are_shown(box: Path, chromium: Browser) -> None:
    _open(chromium, _report(box, "replay", str(TIMELINE), "--compare", "max-relay-seconds=30,600"))
    assert [row.split()[:2] for row in _tables(chromium)[0][1:]] == [
        ["documented", "max-relay-seconds=30"],
        ["documented", "max-relay-seconds=600"],
    ]
    _open(
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
        "documented max-relay-seconds=600 cooldown-seconds=600",
        "documented max-relay-seconds=600 cooldown-seconds=3600",
    ]
    output = run(
        "simulate",
        "restart-cures",
        "--days",
        "1",
        "--runs",
        "4",
        "--compare",
        "cooldown-seconds=600,3600",
    ).stdout
    rows = [line.split() for line in output.splitlines() if line.startswith("restarts")]
    assert [
        row.split() for table in _tables(chromium) for row in table if row.startswith("restarts")
    ] == rows
    assert (
        len(chromium.find_elements(By.CSS_SELECTOR, "svg .median"))
        == len(chromium.find_elements(By.CSS_SELECTOR, "tbody svg"))
        > 20
    )
    _open(
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
    assert [row.split()[2] for row in _tables(chromium)[0][1:]] == [
        "cooldown-seconds=600",
        "cooldown-seconds=3600",
    ]


def test_the_report_of_a_simulation_is_reproducible(box: Path) -> None:
    once = _report(box, "simulate", "flapping", "--days", "1").read_bytes()
    assert _report(box, "simulate", "flapping", "--days", "1").read_bytes() == once


def test_a_report_leaves_the_output_unchanged(box: Path) -> None:
    assert (
        run("replay", str(TIMELINE), "--report", str(box / "r.html")).stdout
        == run("replay", str(TIMELINE)).stdout
    )


def test_five_hundred_peers_over_a_month_stay_usable(box: Path, chromium: Browser) -> None:
    """The changes of a month of 500 peers, in fewer observations.

    The timeline is bounded, so the page is as well.
    """
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
    assert path.stat().st_size < MAX_BYTES
    _open(chromium, path)
    slowest = chromium.execute_async_script("""
        const done = arguments[0], box = document.getElementById("lanes"), times = [];
        const draw = (left) => {
            if (!left) { done(Math.max(...times)); return; }
            const start = performance.now();
            box.scrollTop = left * 900;
            box.dispatchEvent(new KeyboardEvent("keydown", { key: left % 2 ? "-" : "+" }));
            requestAnimationFrame(() => requestAnimationFrame(() => {
                times.push(performance.now() - start);
                draw(left - 1);
            }));
        };
        draw(8);
    """)
    assert slowest / 1000 < MAX_DRAW_SECONDS
    assert _press(chromium, Keys.ARROW_DOWN) != ""


# Errors


def test_a_capture_whose_name_is_not_text_has_a_report(box: Path) -> None:
    capture = str(box / os.fsdecode(b"a\xff\n\x1b[31m.ndjson"))
    Path(capture).write_bytes(TIMELINE.read_bytes())
    ran = run("replay", capture, "--report", str(box / "r.html"))
    assert (ran.status, ran.stderr) == (0, "")
    assert "\x1b" not in ran.stdout + (box / "r.html").read_text()


def test_without_jinja_one_line_says_what_to_install(box: Path) -> None:
    """The line comes before the work, not after it."""
    (box / "jinja2.py").write_text("raise ImportError('not here')\n")
    for tool in (("replay", str(TIMELINE)), ("simulate", "healthy")):
        argv = [sys.executable, "-m", "tsfc", *tool, "--report", str(box / "r.html")]
        process = subprocess.run(
            argv, capture_output=True, text=True, env={"PYTHONPATH": str(box)}, check=False
        )
        assert (process.returncode, process.stdout) == (1, "")
        assert process.stderr == (
            f"tsfc {tool[0]}: --report needs Jinja, which is not installed; "
            "install the extra 'report' of tsfc: docs/offline.md says how\n"
        )


def test_a_failed_write_prints_one_line_after_the_output(box: Path) -> None:
    result = run("replay", str(TIMELINE), "--report", str(box / "none/r.html"))
    assert result.status == 1
    assert result.stdout == run("replay", str(TIMELINE)).stdout
    assert ["No such file" in line for line in error_lines("replay", result)] == [True]
    assert list(box.iterdir()) == []


@pytest.mark.parametrize("make", irregular.EACH_KIND)
def test_only_a_regular_file_is_replaced(box: Path, make: Callable[[Path], None]) -> None:
    """The line comes before the work, not after it."""
    path = box / "r.html"
    make(path)
    before = irregular.remains(box)
    for tool in (("replay", str(TIMELINE)), ("simulate", "healthy")):
        result = run(*tool, "--report", str(path))
        assert error_lines(tool[0], result) == [
            f"writing {path}: it is not a regular file; set --report to a regular file"
        ]
        assert (result.status, result.stdout, irregular.remains(box)) == (1, "", before)


def test_several_captures_are_rejected(box: Path) -> None:
    result = run("replay", str(TIMELINE), str(TIMELINE), "--report", str(box / "r.html"))
    assert (result.status, result.stdout) == (2, "")
    assert len(error_lines("replay", result)) == 1


class _Links(HTMLParser):
    """Collect the references of a page."""

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
