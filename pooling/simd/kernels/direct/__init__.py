"""Small windows: each tap of a window is loaded and combined at one go."""
