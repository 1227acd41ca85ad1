"""Tests of the alert rules and of the dashboard."""
