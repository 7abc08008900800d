"""Quantised networks as the sparse engine takes them: rounding as intervals, exact or as errors of bounded size."""
