"""Monitor the paths of a Tailscale node to its peers, and keep them direct.

Functional core, imperative shell. Imports point one way:

- ``core`` decides: pure functions from status, state and time to metrics and effects.
- ``shell`` acts: sockets, programs, the clock, files and systemd. It decides nothing.
- ``offline`` records captures, and runs the core on captures and simulated tailnets.
- ``view`` shows the peers and the watchdog's verdicts to people.
- ``units`` prints, installs and removes the systemd units of the jobs.
- ``cli`` parses the command line and starts one of them.
"""
