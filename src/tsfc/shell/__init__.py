"""The imperative shell: sockets, programs, clocks, files, systemd. `core` decides."""
