"""Matplotlib settings, colours and names that all pictures share."""
