"""Columns of events in, absolute writes out: which records count, and what they add to windows."""
