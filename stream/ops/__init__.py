"""A person's questions in; findings, dead letters to look at, and records sent again out."""
