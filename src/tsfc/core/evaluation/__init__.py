"""Evaluation of the watchdog over many observations: statistics, timeline, policies."""
