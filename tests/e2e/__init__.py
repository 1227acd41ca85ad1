"""Tests on a real tailnet: tailscaled behind NATs, a coordination server, and where it matters a systemd."""
