"""A whole log in, a report out: windows counted again by code that shares nothing with the fold."""
