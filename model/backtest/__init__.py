"""Models compared on rolling cutoffs of one table."""
