"""Forecasts and final buckets in, scores out; scores in, drift alerts out."""
