"""Whole runs of tsfc, as processes."""
