"""Threads: the pool, the work queue that its threads draw from, and how many CPUs a process may use."""
