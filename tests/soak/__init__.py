"""Tests that repeat random events for as long as they are told to: `make soak`."""
