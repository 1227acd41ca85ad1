"""Each job against a fake tailscaled that replays a capture."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.processes import error_lines, run, series, short_directory, started, wait_until
from tsfc.shell import waiting
from tsfc.shell.tailscaled import localapi
from tsfc.shell.tailscaled import source as tailscaled

FIXTURES = Path(__file__).parent.parent / "fixtures"
JOBS = ["exporter", "native-metrics", "keepalive", "watchdog"]
STATE_FILES = {
    ".lock",
    "state.json",
    ".restart_count",
    ".restart_failure_count",
    ".detection_count",
    ".recovery_count",
}


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    """Socket of a fake tailscaled that stays at the first observation of a capture."""
    with short_directory() as directory:
        path = directory / "s"
        with started(
            "stand-in",
            "--capture",
            str(FIXTURES / "timeline.ndjson"),
            "--socket",
            str(path),
            "--speed",
            "0.001",
        ):
            wait_until(lambda: localapi.is_reachable(str(path)), "the fake tailscaled listens")
            yield path


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    """Samples of an exposition: names, labels and values."""
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def _options(job: str, box: Path) -> list[str]:
    return (
        ["--state-dir", str(box / "state"), "--unit=tailscaled.service"]
        if job == "watchdog"
        else []
    )


def test_the_exporter_writes_the_path_of_every_peer(socket: Path, box: Path) -> None:
    ran = run("exporter", "--socket", str(socket), "--metrics-path", str(box / "a.prom"))
    assert ran == (0, "", "")
    exported = series((box / "a.prom").read_text())
    assert exported["tailscale_up"] == 1
    assert exported['tailscale_peer_direct{peer="carol"}'] == 1
    assert exported['tailscale_peer_direct{peer="bravo"}'] == 0
    assert exported['tailscale_peer_path{path="direct",peer="carol"}'] == 1
    assert exported["tailscale_exporter_last_success_timestamp_seconds"] > 0
    assert exported["tailscale_exporter_duration_seconds"] > 0


def test_the_exporter_counts_accepted_health_messages_apart(box: Path) -> None:
    ran = run(
        "exporter",
        *("--status-file", str(FIXTURES / "field/accept-routes-note.json")),
        *("--accept-health", "*accept-routes*", "--accept-health", "no relay"),
        *("--metrics-path", str(box / "a.prom")),
    )
    assert ran == (0, "", "")
    exported = series((box / "a.prom").read_text())
    assert exported["tailscale_health_issues"] == 0
    assert exported["tailscale_health_issues_accepted"] == 1


def test_the_exporter_can_omit_the_users(socket: Path, box: Path) -> None:
    """Only that label changes; node and peers stay."""
    texts: list[str] = []
    for options in ((), ("--omit-users",)):
        path = ("--socket", str(socket), "--metrics-path", str(box / "a.prom"), "--now", "1")
        assert run("exporter", *path, *options) == (0, "", "")
        texts.append((box / "a.prom").read_text())
    with_users, without = texts
    assert 'user="user-' in with_users
    assert without == re.sub('user="[^"]*"', 'user=""', with_users)


def test_native_metrics_are_those_of_tailscaled_followed_by_own_ones(
    socket: Path, box: Path
) -> None:
    ran = run("native-metrics", "--socket", str(socket), "--metrics-path", str(box / "a.prom"))
    assert ran == (0, "", "")
    own = waiting.run(
        localapi.call(localapi.Connections(str(socket)), "GET", tailscaled.USERMETRICS, timeout=10)
    ).unwrap()
    written = (box / "a.prom").read_bytes()
    assert written.startswith(own)
    assert set(series(written.removeprefix(own).decode())) == {
        "tailscale_native_metrics_up",
        "tailscale_native_metrics_duration_seconds",
    }
    assert series(written.decode())["tailscale_native_metrics_up"] == 1


@pytest.mark.parametrize("source", ["file", "standard input"])
def test_captured_native_metrics_are_unchanged(source: str) -> None:
    captured = FIXTURES / "usermetrics.txt"
    file = str(captured) if source == "file" else "-"
    ran = run(
        "native-metrics",
        "--metrics-file",
        file,
        "--now",
        "1",
        "--metrics-path",
        "-",
        stdin=captured.read_bytes(),
    )
    own = "".join(ran.stdout.partition("# HELP tailscale_native_metrics_up")[1:])
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout == captured.read_text() + own
    assert series(own) == {"tailscale_native_metrics_up": 1}


def test_keepalive_counts_peers_by_result(socket: Path, box: Path) -> None:
    ran = run(
        "keepalive", "--socket", str(socket), "--count", "1", "--metrics-path", str(box / "a.prom")
    )
    assert ran == (0, "", "")
    exported = series((box / "a.prom").read_text())
    assert exported['tailscale_keepalive_peers{result="direct"}'] == 1
    assert exported['tailscale_keepalive_peers{result="derp"}'] == 3
    assert exported['tailscale_keepalive_peer_latency_seconds{path="direct",peer="carol"}'] == 0.012


def test_keepalive_writes_no_file_without_metrics_path(socket: Path, box: Path) -> None:
    assert run(
        "keepalive", "--socket", str(socket), "--count", "1", around=f'cd {box}; exec "$@"'
    ) == (0, "", "")
    assert not list(box.iterdir())


def test_the_watchdog_detects_relays_and_stores_its_state(socket: Path, box: Path) -> None:
    options = (
        "--socket",
        str(socket),
        "--state-dir",
        str(box / "state"),
        "--metrics-path",
        str(box / "a.prom"),
        "--unit=tailscaled.service",
    )
    ran = run("watchdog", *options)
    assert ran == (
        0,
        "".join(f"DETECTED: {name} transitioned to relay\n" for name in ("bravo", "delta", "echo")),
        "",
    )
    exported = series((box / "a.prom").read_text())
    assert exported["tailscale_watchdog_relay_detections_total"] == 3
    assert exported['tailscale_watchdog_peer_state{peer="carol"}'] == 0
    assert exported['tailscale_watchdog_peer_state{peer="echo"}'] == 1
    assert {path.name for path in (box / "state").iterdir()} == {
        *STATE_FILES,
        "peer_bravo",
        "peer_delta",
        "peer_echo",
    }


@pytest.mark.parametrize("job", JOBS)
def test_every_series_has_the_labels(socket: Path, box: Path, job: str) -> None:
    """Those of tailscaled as well. All other text is that of a run without labels."""
    options = (
        *("--socket", str(socket), "--now", "1795438440", "--metrics-path", "-"),
        *(["--count", "1"] if job == "keepalive" else []),
        *(["--unit=tailscaled.service"] if job == "watchdog" else []),
    )
    state = ("--state-dir", str(box / "one")), ("--state-dir", str(box / "two"))
    plain = run(job, *options, *(state[0] if job == "watchdog" else ()))
    ran = run(
        job,
        *options,
        *(state[1] if job == "watchdog" else ()),
        *("--label", "tailscaled=at work", "--label", "zone=a"),
    )
    assert (ran.status, ran.stderr) == (0, plain.stderr)
    assert samples(ran.stdout) == [
        (name, labels | {"tailscaled": "at work", "zone": "a"}, value)
        for name, labels, value in samples(plain.stdout)
    ]
    assert [line for line in ran.stdout.splitlines() if line.startswith("#")] == [
        line for line in plain.stdout.splitlines() if line.startswith("#")
    ]


def test_the_last_success_is_found_in_a_file_with_labels(box: Path) -> None:
    options = ("--metrics-path", str(box / "a.prom"), "--label", "tailscaled=at work")
    status = str(FIXTURES / "mixed-paths.json")
    run("exporter", "--status-file", status, "--now", "1795438440", *options)
    ran = run("exporter", "--socket", str(box / "none"), "--source", "localapi", *options)
    assert (ran.status, len(error_lines("exporter", ran))) == (0, 1)
    exported = series((box / "a.prom").read_text())
    assert exported['tailscale_up{tailscaled="at work"}'] == 0
    last = 'tailscale_exporter_last_success_timestamp_seconds{tailscaled="at work"}'
    assert exported[last] == 1795438440


@pytest.mark.parametrize("job", JOBS)
def test_standard_output_gets_the_metrics_and_nothing_else(
    socket: Path, box: Path, job: str
) -> None:
    """The watchdog's log lines go to standard error then."""
    ran = run(
        job,
        "--socket",
        str(socket),
        "--metrics-path",
        "-",
        *_options(job, box),
        *(["--count", "1"] if job == "keepalive" else []),
    )
    assert ran.status == 0
    assert f"tailscale_{job.replace('-', '_')}_duration_seconds" in series(ran.stdout)
    lines = (
        [f"DETECTED: {name} transitioned to relay" for name in ("bravo", "delta", "echo")]
        if job == "watchdog"
        else []
    )
    assert ran.stderr.splitlines() == lines


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("umask", ["077", "000"])
def test_metrics_files_are_readable_by_all_and_no_temporary_file_remains(
    socket: Path, box: Path, job: str, umask: str
) -> None:
    (box / "out").mkdir()
    path = box / "out" / "a.prom"
    ran = run(
        job,
        *("--socket", str(socket), "--metrics-path", str(path)),
        *_options(job, box),
        *(["--count", "1"] if job == "keepalive" else []),
        around=f'umask {umask}; exec "$@"',
    )
    assert (ran.status, error_lines(job, ran)) == (0, [])
    written = {path, path.with_suffix(".json")} if job == "watchdog" else {path}
    assert set(path.parent.iterdir()) == written
    assert {stat.S_IMODE(each.stat().st_mode) for each in written} == {0o644}


@pytest.mark.parametrize("job", ["exporter", "watchdog"])
def test_a_run_with_now_is_reproducible(box: Path, job: str) -> None:
    options = (
        "--status-file",
        str(FIXTURES / "mixed-paths.json"),
        "--now",
        "1795438491.9",
        "--metrics-path",
        "-",
    )
    first, second = (
        run(job, *options, *(["--state-dir", str(box / number)] if job == "watchdog" else []))
        for number in ("one", "two")
    )
    assert first == second
    assert first.status == 0
    assert f"tailscale_{job}_duration_seconds" not in first.stdout


def test_the_status_can_be_read_from_standard_input(box: Path) -> None:
    ran = run(
        "exporter",
        "--status-file",
        "-",
        "--metrics-path",
        str(box / "a.prom"),
        stdin=(FIXTURES / "mixed-paths.json").read_bytes(),
    )
    assert ran == (0, "", "")
    assert series((box / "a.prom").read_text())["tailscale_up"] == 1


def test_a_stopped_backend_is_up_0_without_peers(box: Path) -> None:
    ran = run(
        "exporter",
        "--status-file",
        str(FIXTURES / "stopped.json"),
        "--metrics-path",
        str(box / "a.prom"),
    )
    assert ran == (0, "", "")
    exported = series((box / "a.prom").read_text())
    assert exported["tailscale_up"] == 0
    assert not [name for name in exported if name.startswith("tailscale_peer")]
