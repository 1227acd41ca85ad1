"""Debian's node_exporter and Prometheus, configured by the examples, read the metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from support.hosts import JOBS, METRICS, PACKAGE, Host, hosting, require_bootable
from support.processes import series, wait_until
from support.required import program

EXAMPLES = Path(__file__).parents[2] / "src/tsfc/mixin/files/examples"
FILES = ("keepalive", "native", "peers", "watchdog")
PROGRAMS = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-node-exporter": "prometheus-node-exporter",
}
"Debian package of each program."
DEBIAN = "/var/lib/prometheus/node-exporter"
"Default directory of Debian's node_exporter."
FETCH = (
    "import sys, urllib.request; "
    "sys.stdout.write(urllib.request.urlopen(sys.argv[1]).read().decode())"
)
NODE_EXPORTER, PROMETHEUS = "http://127.0.0.1:9100", "http://127.0.0.1:9090"


@pytest.fixture(scope="module")
def monitored() -> Iterator[Host]:
    """A host whose jobs have run, with node_exporter and Prometheus as in the examples.

    Only the scrape interval is shorter: 1 s.
    """
    require_bootable()
    for name, package in PROGRAMS.items():
        program(name, package)
    files = {
        "/etc/default/prometheus-node-exporter": 'ARGS=""\n',  # as Debian ships it
        "/example.sh": (EXAMPLES / "prometheus-node-exporter").read_text(),
        f"{DEBIAN}/apt.prom": "apt_upgrades_pending 3\n",
        "/etc/prometheus/prometheus.yml": (EXAMPLES / "prometheus.yml")
        .read_text()
        .replace("30s", "1s"),
    }
    with hosting(files=files) as host:
        host.machine.run("sh", "-c", f"PATH=$PATH:{PACKAGE}/bin sh /example.sh")
        host.tsfc(
            "units", "--install", f"--keepalive-metrics-path={DEBIAN}/tailscale-keepalive.prom"
        )
        host.without_timers()
        for job in JOBS:
            host.start(job)
        host.machine.run("systemctl", "start", "prometheus-node-exporter.service")
        wait_until(lambda: fetch(host, NODE_EXPORTER) is not None, "node_exporter serves")
        yield host


def fetch(host: Host, url: str) -> str | None:
    """Return the response of a server in the machine; None if there is none."""
    ran = host.machine.run("python3", "-c", FETCH, url, check=False)
    return ran.stdout if ran.status == 0 else None


def exported(host: Host, name: str) -> dict[str, float]:
    """Return the samples in `tailscale-NAME.prom`."""
    return series(host.machine.path(f"{DEBIAN}/tailscale-{name}.prom").read_text())


def query_labels(host: Host, query: str) -> list[dict[str, str]]:
    """Return the labels of each series that matches a query in Prometheus."""
    answer = fetch(host, f"{PROMETHEUS}/api/v1/query?{urlencode({'query': query})}")
    return (
        []
        if answer is None
        else [result["metric"] for result in json.loads(answer)["data"]["result"]]
    )


def test_node_exporter_serves_the_values_of_the_files(monitored: Host) -> None:
    """With Debian's settings, and with the files of other packages."""
    response = fetch(monitored, f"{NODE_EXPORTER}/metrics")
    assert response
    values = {
        name.replace(" ", ""): float(value)
        for name, value in re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", response, re.MULTILINE)
    }
    assert values["node_textfile_scrape_error"] == 0
    assert values["apt_upgrades_pending"] == 3
    assert {
        name
        for name in FILES
        if f'node_textfile_mtime_seconds{{file="{DEBIAN}/tailscale-{name}.prom"}}' in values
    } == set(FILES)
    for name in FILES:
        samples = exported(monitored, name)
        assert samples
        assert {name: values.get(name) for name in samples} == samples


def test_prometheus_scrapes_the_metrics_of_each_job(monitored: Host) -> None:
    monitored.machine.run("systemctl", "start", "prometheus.service")
    wait_until(lambda: query_labels(monitored, "tailscale_up == 1"), "Prometheus has scraped")
    assert [
        labels["peer"]
        for labels in query_labels(monitored, 'tailscale_peer_path{path="derp"} == 1')
    ] == ["rpi3"]
    for name in FILES:
        assert query_labels(monitored, min(exported(monitored, name)))


def test_the_example_of_prometheus_is_valid(monitored: Host) -> None:
    ran = monitored.machine.run("promtool", "check", "config", "/etc/prometheus/prometheus.yml")
    assert "SUCCESS" in ran.stdout


def test_only_root_may_redirect_the_files_and_dpkg_keeps_it_so(monitored: Host) -> None:
    """Without the override, the check of the installation refuses the directory."""
    listed = monitored.machine.run("dpkg-statoverride", "--list", "/var/lib/prometheus")
    assert listed.stdout == "root root 755 /var/lib/prometheus\n"
    monitored.machine.run("chown", "prometheus", "/var/lib/prometheus")
    ran = monitored.tsfc("units", "--install", check=False)
    assert ran.status == 1
    assert "users other than root may change /var/lib/prometheus" in ran.stderr
    monitored.machine.run("chown", "root", "/var/lib/prometheus")


def test_the_other_examples_name_the_same_directory() -> None:
    """Alloy and NixOS are not available here."""
    assert f'directory = "{METRICS}"' in (EXAMPLES / "config.alloy").read_text()
    assert f"--collector.textfile.directory={METRICS}" in (EXAMPLES / "nixos.nix").read_text()
