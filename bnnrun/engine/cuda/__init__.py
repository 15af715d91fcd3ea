"""The engine of an NVIDIA GPU: fused kernels, TF32 products, the captured step."""
