"""What several tests need to make a case: statuses, programs, servers."""
