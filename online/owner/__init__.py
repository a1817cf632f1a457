"""One process of a shop estimates what all items do alike; the others read it."""
