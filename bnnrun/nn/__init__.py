"""The paper in plain PyTorch: networks, quantizers, norms, loss, optimizers, and Alg. 1 itself."""
