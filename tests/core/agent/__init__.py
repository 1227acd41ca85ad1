"""Tests of the watchdog's decision."""

from __future__ import annotations
