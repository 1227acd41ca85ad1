"""Requests to tailscaled, over its LocalAPI socket or through the `tailscale` program."""
