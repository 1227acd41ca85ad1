"""Captures of tailscaled's status: record, read, redact."""
