"""What pruning takes from whom, asked of runs, entries and checkpoints; `bench.results.impact` has the answers."""
