"""A fake tailscaled that plays a capture or a scenario (`tsfc stand-in`)."""
