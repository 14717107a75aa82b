"""Vectors: types, operations, loads and stores. What a kernel is written in."""
