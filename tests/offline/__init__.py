"""Tests of what needs no tailscaled."""
