"""A shop's records as ours: where each field is, what converts it, which records are skipped."""
