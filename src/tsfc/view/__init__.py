"""For people who look: what tailscaled shows, beside what the watchdog makes of it. The decisions are the core's."""
