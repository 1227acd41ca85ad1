"""Tests on a real tailnet, the lab."""
