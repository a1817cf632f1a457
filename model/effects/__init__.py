"""A window in, the network's arrays out, with what all its series share learnt from its past."""
