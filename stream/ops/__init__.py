"""What a person asks of a running stream: is everything as it must be, and what became of refused
records.
"""
