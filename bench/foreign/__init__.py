"""A client of freshet that knows its topics and commands alone."""
