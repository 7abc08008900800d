"""`bench`, `models` and `verifiers`, and what they share: ONNX, errors, registries, files, hashes, the version."""

__version__ = "0.1.0"
