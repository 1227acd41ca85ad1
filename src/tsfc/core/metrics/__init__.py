"""What Prometheus reads: metrics as data, their text format, and a check of that text."""
