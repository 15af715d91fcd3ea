"""Benchmarks: one measuring function, and what it is given to measure."""
