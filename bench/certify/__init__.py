"""Certificates of randomized smoothing in a run: kept apart from verdicts from the suite to the report."""
