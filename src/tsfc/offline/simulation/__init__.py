"""A simulated tailnet, and the scenarios that describe one."""
