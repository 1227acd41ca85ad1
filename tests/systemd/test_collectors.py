"""What collects the files, with the configurations in `examples/`: Debian's node_exporter and Prometheus."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from support.hosts import JOBS, METRICS, Host, hosting, require_bootable
from support.processes import wait_until
from support.required import program

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = ("keepalive", "native", "peers", "watchdog")
PROGRAMS = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-node-exporter": "prometheus-node-exporter",
}
"Each with the Debian package that has it."
FETCH = "import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1]).read().decode())"
NODE_EXPORTER, PROMETHEUS = "http://127.0.0.1:9100", "http://127.0.0.1:9090"


@pytest.fixture(scope="module")
def collected() -> Iterator[Host]:
    """A host whose four jobs have run, with node_exporter and Prometheus configured as in the examples, but that Prometheus looks each second."""
    require_bootable()
    for name, package in PROGRAMS.items():
        program(name, package)
    files = {
        "/etc/default/prometheus-node-exporter": (
            EXAMPLES / "prometheus-node-exporter"
        ).read_text(),
        "/etc/prometheus/prometheus.yml": (EXAMPLES / "prometheus.yml")
        .read_text()
        .replace("30s", "1s"),
    }
    with hosting(
        f"--keepalive-metrics-path={METRICS}/tailscale-keepalive.prom", files=files
    ) as host:
        host.without_timers()
        for job in JOBS:
            host.start(job)
        host.machine.run("systemctl", "start", "prometheus-node-exporter.service")
        wait_until(lambda: fetched(host, NODE_EXPORTER) is not None, "node_exporter serves")
        yield host


def fetched(host: Host, url: str) -> str | None:
    """Returns what is served inside the machine; None where nobody answers."""
    ran = host.machine.run("python3", "-c", FETCH, url, check=False)
    return ran.stdout if ran.status == 0 else None


def found(host: Host, query: str) -> list[dict[str, str]]:
    """Returns the labels of the series that Prometheus has for a query."""
    answer = fetched(host, f"{PROMETHEUS}/api/v1/query?{urlencode({'query': query})}")
    return (
        []
        if answer is None
        else [result["metric"] for result in json.loads(answer)["data"]["result"]]
    )


def test_node_exporter_serves_what_the_files_say(collected: Host) -> None:
    served = fetched(collected, f"{NODE_EXPORTER}/metrics")
    assert served
    values = {
        name.replace(" ", ""): float(value)
        for name, value in re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", served, re.MULTILINE)
    }
    assert values["node_textfile_scrape_error"] == 0
    assert {
        name
        for name in FILES
        if f'node_textfile_mtime_seconds{{file="{METRICS}/tailscale-{name}.prom"}}' in values
    } == set(FILES)
    for name in FILES:
        written = collected.exported(name)
        assert written
        assert {line: values.get(line) for line in written} == written


def test_prometheus_scrapes_them(collected: Host) -> None:
    collected.machine.run("systemctl", "start", "prometheus.service")
    wait_until(lambda: found(collected, "tailscale_up == 1"), "Prometheus has scraped")
    assert [
        labels["peer"] for labels in found(collected, 'tailscale_peer_path{path="derp"} == 1')
    ] == ["rpi3"]
    for name in FILES:
        assert found(collected, min(collected.exported(name)))


def test_the_example_of_prometheus_is_valid(collected: Host) -> None:
    ran = collected.machine.run("promtool", "check", "config", "/etc/prometheus/prometheus.yml")
    assert "SUCCESS" in ran.stdout


def test_the_other_examples_name_the_same_directory() -> None:
    """Alloy and NixOS cannot be had here."""
    assert f'directory = "{METRICS}"' in (EXAMPLES / "config.alloy").read_text()
    assert f"--collector.textfile.directory={METRICS}" in (EXAMPLES / "nixos.nix").read_text()
