"""Quantiles in, what they say out: distributions, sums over steps, conversion, and metrics."""
