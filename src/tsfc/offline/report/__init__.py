"""The HTML report of a replay or a simulation."""
