"""Stored windows in, rows out: how far the inputs have come, and the newest buckets of every
item.
"""
