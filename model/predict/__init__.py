"""A table in, a table of forecasts out."""
