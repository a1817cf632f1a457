"""Stored windows in; how far the inputs have come, the newest buckets of all items, exports out."""
