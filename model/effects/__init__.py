"""What all series of a table share, learnt before the network: closed days, calendar, flags,
prices.
"""
