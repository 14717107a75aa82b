"""``python -m bench``: commands, progress, errors."""
