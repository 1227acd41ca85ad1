"""The watchdog's decision.

Read the nouns first: `state`, `events`, `effects`, `remedy`, `policy`. `step` is the
verb; `track` and `threshold` are its parts.
"""
