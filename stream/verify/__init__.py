"""A whole log in, a report out: windows counted again by code of its own, held against Redis."""
