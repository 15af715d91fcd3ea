"""Elementwise and transform kernels of the processor, compiled by Numba; arrays in, arrays out."""
