"""The suite: every backend proven, timed, trained with and shown. Run from a checkout: ``python -m bench --help``."""
