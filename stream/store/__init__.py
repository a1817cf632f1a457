"""Updates of windows in, stored state out: keys, tiles and the atomic calls in Redis."""
