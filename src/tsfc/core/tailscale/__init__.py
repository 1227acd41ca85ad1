"""What tailscaled reports: the status, its peers and their paths, and the results of pings."""
