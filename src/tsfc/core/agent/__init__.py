"""What the agent decides and counts: when jobs run, and what they found over time."""
