"""Forecasts wait here for their final bucket; scores of it come out, and drift alerts."""
