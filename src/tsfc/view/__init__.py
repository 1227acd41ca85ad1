"""Views of a node for people: its peers, their paths and the watchdog's verdicts."""
