"""ONNX, the exchange format: files read safely, one normal form for all readers, weights counted once."""
