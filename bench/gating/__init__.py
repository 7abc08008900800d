"""The regression gate, part by part: what is compared, by which rules, and how it is told."""
