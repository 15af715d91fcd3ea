"""Passes over memory, on the processor, compiled by Numba; arrays in, arrays out."""
