"""Rows of one plane as they lie in memory: a vector holds neighbouring outputs of one row."""
