"""Where things are unless the command line says otherwise. It imports nothing: `tsfc --help` reads it, too."""

from __future__ import annotations

SOCKET = "/var/run/tailscale/tailscaled.sock"
"Where tailscaled listens on Linux (`paths/paths.go`)."

EXPORTER_PATH = "/var/lib/alloy/tailscale-peers.prom"
NATIVE_METRICS_PATH = "/var/lib/alloy/tailscale-native.prom"
WATCHDOG_PATH = "/var/lib/alloy/tailscale-watchdog.prom"
STATE_DIR = "/var/lib/tailscale-watchdog"
