"""The watchdog's decision and nothing else.

Read `state`, `events`, `effects` and `policy` first: they are the nouns. `step` is the verb; `families` tells of it.
"""
