"""The bridge from training to packed networks: folding, packing, and the proof of equality."""
