"""A table in, a comparison out: models forecast its windows, and what came then judges them."""
