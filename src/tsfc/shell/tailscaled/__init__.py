"""Requests to tailscaled, over the LocalAPI or with the `tailscale` CLI."""
