"""What acts: sockets, programs, the clock, files, systemd. One path through each; what is decided, is decided in `core`."""
