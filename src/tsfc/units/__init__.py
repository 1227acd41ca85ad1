"""The systemd units of the jobs, and their installation (`tsfc units`)."""
