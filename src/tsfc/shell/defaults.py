"""Default paths. This module must import nothing: `tsfc --help` loads it."""

from __future__ import annotations

SOCKET = "/var/run/tailscale/tailscaled.sock"
"tailscaled's socket on Linux (`paths/paths.go`)."

EXPORTER_PATH = "/var/lib/alloy/tailscale-peers.prom"
NATIVE_METRICS_PATH = "/var/lib/alloy/tailscale-native.prom"
WATCHDOG_PATH = "/var/lib/alloy/tailscale-watchdog.prom"
STATE_DIR = "/var/lib/tailscale-watchdog"
