"""The page, its pictures and its templates."""
