"""What the optional extra `fleet` does."""
