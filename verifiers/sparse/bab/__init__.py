"""Branch and bound: the search, its open domains, dual bounds, the proofs of leaves, attacks on the way."""
