"""From an ONNX graph to sparse affine nodes."""
