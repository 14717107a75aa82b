"""What is measured: the suite, and each study in it."""
