"""`freshet demo`: everything on one machine, watched and counted from outside."""
