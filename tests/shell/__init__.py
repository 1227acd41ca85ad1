"""Tests of the imperative shell and of the command line: real processes, sockets and files."""
