"""A verifier that skips zeros: sparse networks, rigorous bounds and a complete search."""

from prunecert.verifiers.sparse.cache import separate

separate()
