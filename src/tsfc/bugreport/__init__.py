"""`tsfc report-bug`: one file for a bug report, with pseudonyms instead of names."""
