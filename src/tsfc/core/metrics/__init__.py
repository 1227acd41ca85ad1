"""Prometheus metrics: as data, as text, and a linter for the text."""
