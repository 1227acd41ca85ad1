"""What the optional extra `tsfc[fleet]` does."""
