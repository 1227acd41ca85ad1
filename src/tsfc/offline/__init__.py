"""Tools that need no tailscaled: replay of captures, simulation, a fake tailscaled."""
