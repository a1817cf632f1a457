"""Drift, flash sales and learn's answers in, alerts and retrain requests out."""
