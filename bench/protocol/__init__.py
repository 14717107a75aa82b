"""How contenders are verified and timed."""
