"""Tailscale's data: the status, its peers and their paths, and ping results."""
