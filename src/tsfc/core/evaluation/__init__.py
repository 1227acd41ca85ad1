"""The watchdog's decision over many observations: run it, count, compare, summarize."""
