"""A forecast in, its reasons out: what adds how much, where it looked, what a promotion changes."""
