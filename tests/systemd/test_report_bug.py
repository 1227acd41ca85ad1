"""`tsfc report-bug` on a host whose units run."""

from __future__ import annotations

import re
from pathlib import Path

from support.hosts import hosting, require_bootable


def test_a_report_has_the_units_and_the_journal_of_a_host() -> None:
    """A drop-in of its user is in it, too, and no name is."""
    require_bootable()
    with hosting("--watchdog-exclude-peers=bravo") as host:
        host.without_timers()
        with host.overridden("tailscale-exporter.service", "[Service]\nEnvironment=A=zorro\n"):
            for job in ("exporter", "native-metrics", "watchdog"):
                host.start(job)
            host.machine.run(
                *("systemd-cat", "--identifier=tailscale-watchdog"),
                *("echo", "WAITING: rpi3 on relay for 5s (threshold: 600s)"),
            )
            host.machine.run("journalctl", "--sync")
            ran = host.tsfc("report-bug", "rpi3", "--output", "/run/report.txt")
        report = host.machine.path("/run/report.txt").read_text()
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert ran.stderr == ""
    assert "Missing: " not in ran.stdout
    (pseudonym,) = re.findall(r"^rpi3 is (\w+)\.$", ran.stdout, re.MULTILINE)
    parts = {part.partition(" ==\n")[0]: part for part in report.split("\n== ")[1:]}
    assert (
        f"tailscale-watchdog WAITING: {pseudonym} on relay for 5s (threshold: 600s)\n"
        in (parts["journal of tailscale-watchdog"])
    )
    assert f"tailscale-watchdog DETECTED: {pseudonym} transitioned to relay\n" in report
    options = parts["options of the units"]
    assert '"watchdog" "--restart-socket" "/run/tailscale-watchdog/restart.sock"' in options
    assert '# Options: {"arguments":["--watchdog-exclude-peers=n' in options
    assert "# /run/systemd/system/tailscale-exporter.service.d/" in options
    assert re.search(r"^tailscale-watchdog\.timer loaded inactive dead$", report, re.MULTILINE)
    assert re.search(rf"^{pseudonym} .* restart in 10m", parts["tsfc peers"], re.MULTILINE)
    assert not re.search(rf"rpi3|bravo|zorro|{boot_id}", report)
