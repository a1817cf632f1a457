"""Measurements: one script a claim, each writing `bench/results/<name>.json` with machine and
versions.
"""
