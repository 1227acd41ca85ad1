"""What needs no tailscaled: recordings and imagined tailnets, through the same core."""
