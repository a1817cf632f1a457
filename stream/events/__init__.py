"""Bytes of the event topics in, checked columns out; what cannot be read leaves as dead letters."""
