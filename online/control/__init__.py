"""Drift alerts and promotions in, alerts and retrain requests out."""
