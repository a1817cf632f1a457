"""Versions of weights: kept in a folder, named by people, swapped while forecasts go on."""
