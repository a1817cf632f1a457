"""Catalogue, promotions and inventory records in, answers about an item now and through time
out.
"""
