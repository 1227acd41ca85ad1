"""Tests on a booted machine: systemd as PID 1, with units of ours."""
