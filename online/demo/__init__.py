"""Options in; broker, Redis and every process started, watched and counted; a summary out."""
