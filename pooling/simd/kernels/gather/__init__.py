"""Backward of overlapping windows: each cell gathers gradient from the outputs over it."""
