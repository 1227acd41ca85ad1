"""Default paths. This module must import nothing: `tsfc --help` loads it."""

from __future__ import annotations

SOCKET = "/var/run/tailscale/tailscaled.sock"
"tailscaled's socket on Linux (`paths/paths.go`)."

UNIT = "tailscaled.service"
"Unit of the tailscaled that listens on `SOCKET`."

METRICS_DIR = "/var/lib/alloy"
EXPORTER_PATH = f"{METRICS_DIR}/tailscale-peers.prom"
NATIVE_METRICS_PATH = f"{METRICS_DIR}/tailscale-native.prom"
WATCHDOG_PATH = f"{METRICS_DIR}/tailscale-watchdog.prom"
AGENT_PATH = f"{METRICS_DIR}/tailscale-agent.prom"
STATE_DIR = "/var/lib/tailscale-watchdog"
PAUSE_FILE = "/run/tailscale-watchdog/pause"


def is_default_socket(path: str) -> bool:
    """Whether a socket is that of `UNIT`; `/var/run` is a link to `/run`."""
    return path in {SOCKET, SOCKET.removeprefix("/var")}
