"""Benchmarks of the sparse engine beside other verifiers, as ratios within one run."""
