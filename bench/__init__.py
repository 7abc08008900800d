"""The harness: one file per verb."""
