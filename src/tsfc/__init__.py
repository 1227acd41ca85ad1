"""tsfc: see, and keep alive, the peer-to-peer paths of a Tailscale node.

The folders are the architecture, and imports point one way:

- ``core`` decides. Pure functions from (status, previous state, now) to (metrics, new state, effects).
- ``shell`` acts. Sockets, programs, the clock, files, systemd; one path through each, and nothing is decided there.
- ``offline`` plays recordings, with the same core and no daemon.
- ``cli`` reads the command line and starts one of them.
"""
