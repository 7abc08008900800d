"""Kernels as LLVM intrinsics, with their vectors."""
