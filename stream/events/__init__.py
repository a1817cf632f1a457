"""Bytes of the event topics in, columns of judged fields out; what cannot be read leaves as a dead
letter.
"""
