"""How windows lie in Redis: keys, tiles and the atomic calls; updates in, stored state out."""
