"""Marabou, an extra."""
