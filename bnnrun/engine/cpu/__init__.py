"""The engine of the processor: popcounts, tables of sums, Winograd's filtering, fused kernels."""
