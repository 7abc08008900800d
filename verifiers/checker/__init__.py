"""Checks certificates: proofs that a ReLU network keeps a property, or breaks it, whoever found them.

This folder needs NumPy and nothing else, and may be copied out: ``python -m checker FILE ONNX VNNLIB``. It reads the
network and the property itself and believes nothing that a certificate says but how to go about it. What it accepts
holds for the real-valued function that the network file's numbers define; docs/certificates.md says on what this rests.
"""

from .files import RefusedError, UnreadableError
from .proof import Report, check, check_stream

__all__ = ["RefusedError", "Report", "UnreadableError", "check", "check_stream"]
