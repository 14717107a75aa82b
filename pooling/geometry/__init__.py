"""Shape arithmetic, apart from execution: which cells stand under which window, and which of them wins."""
