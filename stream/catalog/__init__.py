"""Catalogue, promotion and inventory records in; what is known of each item, now and then, out."""
