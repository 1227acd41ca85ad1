"""An upgrade of the units on a running host keeps their options."""

from __future__ import annotations

from support.hosts import hosting, require_bootable, service

OPTIONS = ("--watchdog-exclude-peers=rpi3", "--watchdog-dry-run", "--exporter-interval=7min")


def test_a_second_installation_keeps_the_options_of_the_running_units() -> None:
    require_bootable()
    with hosting(*OPTIONS) as host:
        ran = host.tsfc("units", "--install")
        lines = ran.stdout.splitlines()
        assert ran.stderr == ""
        assert [line for line in lines if line.startswith("kept ")] == [
            "kept --exporter-interval=7min for exporter",
            "kept --watchdog-exclude-peers=rpi3 for watchdog",
            "kept --watchdog-dry-run for watchdog",
        ]
        for name in ("tailscale-watchdog.timer", "tailscale-watchdog-restart.socket"):
            assert {f"enabled {name}", f"started {name}"} <= set(lines)
            assert host.machine.show(name, "ActiveState") == "active"
        command = host.machine.show(service("watchdog"), "ExecStart")
        assert "--exclude-peer rpi3 --dry-run" in command
        timers = host.machine.show("tailscale-exporter.timer", "TimersMonotonic")
        assert "OnUnitActiveUSec=7min" in timers
        host.tsfc("units", "--install", "--unset=watchdog-dry-run")
        assert "--dry-run" not in host.machine.show(service("watchdog"), "ExecStart")
        assert "--exclude-peer rpi3" in host.machine.show(service("watchdog"), "ExecStart")
        assert host.failed_units() == []
