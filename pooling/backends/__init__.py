"""The backends: one file per trick, and the registry.

A backend's file holds the forward pass and, right below it, its backward pass; a docstring that explains the trick and says what
it costs; and one `Backend` named BACKEND at the end that declares what it can do. Files that begin with an underscore are shared
helpers. Adding a backend is one such file and one line in `registry.py`.
"""
