"""A packed network for other tools: C99, ONNX and QONNX."""
