"""`tsfc units --instance`: units of their own for another tailscaled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.exec_line import command
from support.processes import Completed, error_lines, run

JOBS = ("exporter", "native-metrics", "keepalive", "watchdog", "capture")
UNITS = "etc/systemd/system"
SOCKET = "/run/tailscale-work/tailscaled.sock"
WORK = ("--instance=work", f"--socket={SOCKET}", "--watchdog-unit=tailscaled-work.service")


@pytest.fixture
def root(box: Path) -> Path:
    """Root of an empty file system."""
    root = box / "root"
    root.mkdir()
    return root


def units(root: Path, *arguments: str, action: str = "install") -> Completed:
    return run("units", f"--{action}", "--root", str(root), "--package=/opt/tsfc", *arguments)


def install(root: Path, *arguments: str) -> None:
    """Install, which must succeed without a warning."""
    ran = units(root, *arguments)
    assert (ran.status, ran.stderr) == (0, "")


def tree(root: Path) -> dict[str, str]:
    """Text of each file, and target of each link."""
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def of_work(text: str) -> str:
    """Replace the names of the usual units, and of their directories."""
    return re.sub(
        r"tailscale-(exporter|native-metrics|keepalive|watchdog|capture)(-restart)?",
        r"\g<0>-work",
        text,
    )


def sections(text: str) -> list[str]:
    """Lines of a unit whose values do not depend on the options."""
    return [
        line
        for line in text.splitlines()
        if not line.startswith(("#", "ExecStart=", "BindReadOnlyPaths=-/run/tailscale-work"))
    ]


def test_an_instance_has_all_units_under_names_of_its_own(root: Path) -> None:
    """They are enabled, and the usual units stay as they are."""
    install(root, *JOBS)
    usual = tree(root)
    install(root, *JOBS, *WORK)
    both = tree(root)
    assert {path: both[path] for path in usual} == usual
    added = {path: text for path, text in both.items() if path not in usual}
    assert set(added) == {of_work(path) for path in usual}
    assert f"{UNITS}/tailscale-watchdog-restart-work@.service" in added
    assert f"{UNITS}/sockets.target.wants/tailscale-watchdog-restart-work.socket" in added
    for path, text in usual.items():
        if path.startswith(f"{UNITS}/tailscale-") and path.endswith(("timer", "service")):
            service = of_work(text).replace("tailscaled.service", "tailscaled-work.service")
            mine = added[of_work(path)].replace("tailscaled.service", "tailscaled-work.service")
            assert sections(mine) == [
                line for line in sections(service) if line != "BindReadOnlyPaths=-/run/tailscale"
            ], path


def test_an_instance_shares_no_file_directory_or_series_with_the_usual_units(root: Path) -> None:
    install(root, *JOBS, *WORK)
    written = tree(root)
    commands = {job: command(written[f"{UNITS}/tailscale-{job}-work.service"])[1:] for job in JOBS}
    labels = ("--label", "tailscaled=work")
    assert commands == {
        "exporter": (
            *("exporter", "--socket", SOCKET),
            *("--metrics-path", "/var/lib/alloy/tailscale-peers-work.prom", *labels),
        ),
        "native-metrics": (
            *("native-metrics", "--socket", SOCKET),
            *("--metrics-path", "/var/lib/alloy/tailscale-native-work.prom", *labels),
        ),
        "keepalive": ("keepalive", "--socket", SOCKET, *labels),
        "watchdog": (
            *("watchdog", "--restart-socket", "/run/tailscale-watchdog-work/restart.sock"),
            *("--state-dir", "/var/lib/tailscale-watchdog-work", "--socket", SOCKET),
            *("--max-relay-seconds", "600", "--cooldown-seconds", "600"),
            *("--unit", "tailscaled-work.service"),
            *("--metrics-path", "/var/lib/alloy/tailscale-watchdog-work.prom", *labels),
        ),
        "capture": (
            *("capture", "--max-size", "64M", "--keep", "5", "--socket", SOCKET),
            *("--output", "/var/lib/tailscale-capture-work/status.ndjson.zst"),
        ),
    }
    watchdog = written[f"{UNITS}/tailscale-watchdog-work.service"].splitlines()
    assert {
        "StateDirectory=tailscale-watchdog-work",
        "SyslogIdentifier=tailscale-watchdog-work",
        "BindReadOnlyPaths=-/run/tailscale-watchdog-work",
        "BindReadOnlyPaths=-/run/tailscale-work",
    } <= set(watchdog)
    socket = written[f"{UNITS}/tailscale-watchdog-restart-work.socket"]
    assert "ListenStream=/run/tailscale-watchdog-work/restart.sock\n" in socket
    helper = written[f"{UNITS}/tailscale-watchdog-restart-work@.service"]
    assert '"UNIT=tailscaled-work.service"' in helper
    assert "tailscaled.service" not in helper


def test_an_instance_has_a_pause_file_of_its_own(root: Path) -> None:
    """In the directory that its sandbox shows."""
    install(root, *WORK, "--watchdog-policy=guarded")
    text = tree(root)[f"{UNITS}/tailscale-watchdog-work.service"]
    assert '"--pause" "/run/tailscale-watchdog-work/pause"' in text
    assert "BindReadOnlyPaths=-/run/tailscale-watchdog-work\n" in text


def test_given_labels_replace_the_default_one(root: Path) -> None:
    install(root, *WORK, "--labels=daemon=b")
    text = tree(root)[f"{UNITS}/tailscale-exporter-work.service"]
    assert command(text)[-2:] == ("--label", "daemon=b")


def test_an_instance_keeps_its_own_options(root: Path) -> None:
    install(root, "--exporter-interval=7min", "--watchdog-exclude-peers=a")
    install(root, *WORK, "--watchdog-exclude-peers=b")
    before = tree(root)
    assert units(root, "--instance=work").status == 0
    assert units(root).status == 0
    assert tree(root) == before


def test_uninstall_removes_only_the_instance(root: Path) -> None:
    install(root)
    usual = tree(root)
    install(root, *WORK)
    assert units(root, "--instance=work", action="uninstall").status == 0
    assert tree(root) == usual
    install(root, *WORK)
    assert units(root, action="uninstall").status == 0
    assert {path for path in tree(root) if "-work" not in path} == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--instance=work"],
            (
                "--instance work is for another tailscaled than that of "
                "/run/tailscale/tailscaled.sock; give --socket"
            ),
        ),
        (
            ["--instance=work", f"--socket={SOCKET}"],
            (
                f"--socket {SOCKET} may be that of another tailscaled than tailscaled.service, "
                "which the watchdog would restart; give --watchdog-unit"
            ),
        ),
        (
            ["--instance=a-b", *WORK[1:]],
            "argument --instance: 'a-b' is not up to 32 letters, digits and underscores",
        ),
        (["--instance=restart", *WORK[1:]], "argument --instance: 'restart' is not up to"),
        (["--instance=notify", *WORK[1:]], "argument --instance: 'notify' is not up to"),
        (["--instance=", *WORK[1:]], "argument --instance: '' is not up to"),
        (["--instance=../x", *WORK[1:]], "argument --instance: '../x' is not up to"),
    ],
)
def test_a_bad_instance_is_reported_in_one_line_and_changes_nothing(
    root: Path, arguments: list[str], says: str
) -> None:
    ran = units(root, *arguments)
    (complaint,) = error_lines("units", ran)
    assert says in complaint
    assert (ran.status, ran.stdout, any(root.iterdir())) == (2, "", False)


def test_a_watchdog_without_keepalive_of_its_instance_is_reported(root: Path) -> None:
    install(root, "keepalive")
    assert len(error_lines("units", units(root, "watchdog", *WORK))) == 1
    install(root, "keepalive", *WORK[:2])
    install(root, "watchdog", "--instance=work")
