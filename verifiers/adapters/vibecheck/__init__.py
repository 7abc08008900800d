"""Vibecheck, in an interpreter of its own."""
