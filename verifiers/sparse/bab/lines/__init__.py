"""Subtrees whose subdomains share one line for each ReLU that is not split, so that a bound is a few sums."""
