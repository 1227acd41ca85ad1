"""The live page of the agent, opened in Chromium."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from selenium.webdriver import Keys
from selenium.webdriver.common.by import By

from support.browser import COLORS, DERP, DIRECT, Browser
from support.processes import DEADLINE_SECONDS, ended, started, wait_until
from support.programs import program
from support.servers import DIRECT_PONG, Request, Response, serving, tailscaled
from support.statuses import encoded, peer
from tsfc.offline.report import assets
from tsfc.shell.tailscaled.localapi import is_reachable

TURN_SECONDS = 3.0
"Time in which the page shows what the agent saw."
MAX_TASK_SECONDS = 0.5
"Longest time for which the page may not react."
HOSTILE_NAME = (
    '</script x><script>document.title = "broken"</script><img src=x onerror="document.title=1">'
)

TIME = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ"

STUCK = """
summary = "As restart-cures, but it begins soon."
lasts = "1d"
[[peers]]
name = "nas"
[[events]]
kind = "stuck"
at = "1min"
lasts = "8h"
peers = ["nas"]
restart = "cures"
"""


class Tailnet:
    """A tailscaled whose peers a test changes."""

    def __init__(self, **paths: str) -> None:
        self.peers = [peer(name, path) for name, path in paths.items()]

    def respond(self, request: Request) -> Response:
        """Answer a request."""
        status = encoded(*self.peers, Self={"DNSName": "alpha.example.ts.net."})
        return tailscaled(status, lambda _: DIRECT_PONG, b"# nothing\n")(request)


class Agent:
    """An agent that looks each second and listens on a port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    @property
    def url(self) -> str:
        """Address of its page."""
        return f"http://127.0.0.1:{self.port}/"

    def get(self, path: str) -> tuple[http.client.HTTPResponse, str]:
        """The response to a request, and its body."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        client.request("GET", path)
        response = client.getresponse()
        body = response.read().decode()
        client.close()
        return response, body

    def paths(self) -> dict[str, str]:
        """The last path of each peer in its history."""
        history = json.loads(self.get("/api/history")[1])
        return {
            lane["name"]: history["paths"][lane["values"][-1] // history["shift"]]
            for lane in history["peers"]
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _agent(box: Path, *arguments: str, programs: Path | None = None) -> Generator[Agent]:
    (box / "metrics").mkdir()
    port = _free_port()
    options = (
        *("--exporter-interval=1s", "--watchdog-interval=1s", "--jobs=exporter,watchdog"),
        *(f"--socket={box}/s", f"--metrics-dir={box}/metrics", f"--state-dir={box}/state"),
        f"--listen=127.0.0.1:{port}",
    )
    with started("agent", *options, *arguments, programs=programs) as process:
        wait_until((box / "metrics/tailscale-watchdog.json").exists, "the watchdog has run")
        yield Agent(process, port)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert ended(process).status == 0


def _open(browser: Browser, agent: Agent) -> None:
    browser.get_log("browser")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get(agent.url)
    wait_until(lambda: _rows(browser), "the table is there")


def _rows(browser: Browser) -> dict[str, list[str]]:
    """The cells of the table, by the peer."""
    rows: list[list[str]] = browser.execute_script(
        "return [...document.querySelectorAll('#peers tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return {row[0]: row[1:] for row in rows}


def _text(browser: Browser, name: str) -> str:
    return str(browser.find_element(By.ID, name).text)


def _is_dimmed(browser: Browser) -> bool:
    return "stale" in browser.find_element(By.ID, "main").get_attribute("class")


def test_a_peer_that_turns_turns_on_the_page(box: Path, chromium: Browser) -> None:
    tailnet = Tailnet(nas="direct")
    with serving(box / "s", tailnet.respond), _agent(box, "--watchdog-args=--unit=x") as agent:
        _open(chromium, agent)
        wait_until(lambda: chromium.execute_script(COLORS).get(DIRECT), "the lane is drawn")
        assert DERP not in chromium.execute_script(COLORS)
        assert _rows(chromium)["nas"][-1] == "direct"
        assert chromium.title == "Paths of alpha"
        assert _text(chromium, "lines").startswith("alpha is Running")
        subtitle = chromium.find_element(By.CLASS_NAME, "subtitle").text
        program = re.escape(assets.program())
        assert re.fullmatch(rf"last look {TIME} · {program}", subtitle)
        assert chromium.get_log("browser") == []

        tailnet.peers = [peer("nas", "derp")]
        wait_until(lambda: agent.paths() == {"nas": "derp"}, "the agent has seen it")
        seen = time.monotonic()
        wait_until(lambda: chromium.execute_script(COLORS).get(DERP), "the lane has turned")
        assert time.monotonic() - seen < TURN_SECONDS
        wait_until(lambda: _rows(chromium)["nas"][0] == "relay fra", "so has the table")
        assert chromium.get_log("browser") == []
        assert not _is_dimmed(chromium)


def test_a_peer_that_turns_leaves_the_row_of_those_that_were_never_on_relay(
    box: Path, chromium: Browser
) -> None:
    tailnet = Tailnet(nas="direct", rpi3="direct", vps="direct", laptop="offline")
    with serving(box / "s", tailnet.respond), _agent(box, "--watchdog-args=--unit=x") as agent:
        _open(chromium, agent)
        button = chromium.find_element(By.ID, "calm")
        wait_until(lambda: button.text.endswith("4 peers never on relay"), "all share a row")
        button.click()
        tailnet.peers = [peer("nas", "derp"), *tailnet.peers[1:]]
        wait_until(lambda: button.text.endswith("3 peers never on relay"), "one has left it")
        assert button.get_attribute("aria-expanded") == "true"
        assert chromium.get_log("browser") == []


def test_the_page_says_that_tailscaled_is_gone(box: Path, chromium: Browser) -> None:
    with _agent(box, "--watchdog-args=--unit=x") as agent:
        with serving(box / "s", Tailnet(nas="direct").respond):
            wait_until(agent.paths, "it is there")
            _open(chromium, agent)
            assert _text(chromium, "problem") == ""
        wait_until(lambda: _is_dimmed(chromium), "the page is dimmed")
        assert _text(chromium, "what").startswith("No answer from tailscaled: ")
        wait_until(lambda: _text(chromium, "since") == "(for 3 s)", "the time goes on")
        assert "nas" in _rows(chromium)
        (box / "s").unlink()
        with serving(box / "s", Tailnet(nas="direct").respond):
            wait_until(lambda: not _is_dimmed(chromium), "tailscaled is back")
            assert _text(chromium, "problem") == ""


def test_the_page_says_that_the_agent_is_gone(box: Path, chromium: Browser) -> None:
    with (
        serving(box / "s", Tailnet(nas="direct").respond),
        _agent(box, "--watchdog-args=--unit=x") as agent,
    ):
        _open(chromium, agent)
        agent.process.kill()
        wait_until(lambda: _is_dimmed(chromium), "the page is dimmed")
        assert _text(chromium, "what") == "No answer from the agent"
        wait_until(lambda: _text(chromium, "since").startswith("(for "), "it says for how long")


def test_the_page_asks_only_when_something_may_have_changed(box: Path, chromium: Browser) -> None:
    """It waits for the next run of a job, but at most 10 seconds."""
    script = chromium.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {
            "source": """{
                const { setTimeout } = window;
                window.pauses = [];
                window.setTimeout = (act, pause) => {
                    pauses.push(pause);
                    return setTimeout(act, pause);
                };
            }"""
        },
    )
    try:
        with (
            serving(box / "s", Tailnet(nas="direct").respond),
            _agent(
                box,
                *("--exporter-interval=1h", "--watchdog-interval=1h", "--watchdog-args=--unit=x"),
            ) as agent,
        ):
            _open(chromium, agent)
            wait_until(lambda: chromium.execute_script("return pauses").count(10000), "it waits")
            agent.process.kill()
            chromium.execute_script("document.dispatchEvent(new Event('visibilitychange'))")
            wait_until(lambda: _is_dimmed(chromium), "it asks at once if it is shown again")
            wait_until(
                lambda: chromium.execute_script("return pauses").count(2000) > 1,
                "it asks again soon, because there was no answer",
            )
    finally:
        chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_five_hundred_peers_stay_smooth(box: Path, chromium: Browser) -> None:
    """Each look shows another path for each. Chromium reports tasks longer than 50 ms."""
    names = [f"peer-{number}" for number in range(500)]
    tailnet = Tailnet(**dict.fromkeys(names, "direct"))
    with serving(box / "s", tailnet.respond), _agent(box, "--watchdog-args=--unit=x") as agent:
        _open(chromium, agent)
        chromium.execute_script("""
            window.longest = 0;
            new PerformanceObserver((list) => {
                for (const { duration } of list.getEntries()) longest = Math.max(longest, duration);
            }).observe({ type: "longtask" });
        """)
        for path, word in (("derp", "relay fra"), ("idle", "idle"), ("offline", "offline")):
            tailnet.peers = [peer(name, path) for name in names]
            wait_until(partial(_are_all, chromium, word), "all rows have turned")
        assert chromium.execute_script("return longest") / 1000 < MAX_TASK_SECONDS


def _are_all(browser: Browser, path: str) -> bool:
    rows = _rows(browser)
    return len(rows) == 500 and {row[0] for row in rows.values()} == {path}


def test_names_stay_text(box: Path, chromium: Browser) -> None:
    tailnet = Tailnet()
    tailnet.peers = [peer("x", "derp", DNSName="", HostName=HOSTILE_NAME)]
    with serving(box / "s", tailnet.respond), _agent(box, "--watchdog-args=--unit=x") as agent:
        _open(chromium, agent)
        assert any("<img" in name for name in _rows(chromium))
        assert chromium.find_elements(By.TAG_NAME, "img") == []
        assert chromium.title == "Paths of alpha"
        chromium.find_element(By.ID, "lanes").send_keys(Keys.ARROW_DOWN)
        assert "<img" in _text(chromium, "selection")
        assert chromium.get_log("browser") == []


def test_the_page_is_fixed_by_its_policy(box: Path) -> None:
    with (
        serving(box / "s", Tailnet(nas="direct").respond),
        _agent(box, "--watchdog-args=--unit=x") as agent,
    ):
        response, body = agent.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "connect-src 'self';" in policy
    assert "http:" not in body
    assert "https:" not in body


def test_what_the_watchdog_does_is_shown(box: Path, chromium: Browser) -> None:
    """A simulated tailnet, whose tailscaled a fake systemctl restarts.

    It plays no faster than keepalive can keep its paths.
    """
    (box / "stuck.toml").write_text(STUCK)
    with started(
        *("stand-in", f"--scenario={box}/stuck.toml", f"--socket={box}/s", "--speed=20")
    ) as stand_in:
        wait_until(lambda: is_reachable(f"{box}/s"), "it listens")
        program(box, "systemctl", f"kill -HUP {stand_in.pid}")
        options = (
            *("--jobs=exporter,keepalive,watchdog", "--keepalive-interval=1s"),
            "--watchdog-args=--unit=x --max-relay-seconds=2 --cooldown-seconds=3",
        )
        with _agent(box, *options, programs=box) as agent:
            _open(chromium, agent)
            wait_until(lambda: ": helped" in _text(chromium, "attempts"), "a restart has helped")
            assert "restart because of nas: " in _text(chromium, "attempts")
            assert not chromium.find_element(By.ID, "idle").is_displayed()
            assert "RESTART" in _marks(agent)
        stand_in.send_signal(signal.SIGTERM)
        ended(stand_in)


def _marks(agent: Agent) -> set[str]:
    """The verdicts in the history of any peer."""
    history = json.loads(agent.get("/api/history")[1])
    return {
        str(history["reasons"][value % history["shift"]]).upper()
        for lane in history["peers"]
        for value in lane["values"]
    }
