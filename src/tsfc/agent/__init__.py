"""The agent: all jobs in one process, which one thread runs."""
