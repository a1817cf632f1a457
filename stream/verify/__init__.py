"""A whole log in, a verdict out: windows counted a second time by code that shares nothing with the
fold.
"""
