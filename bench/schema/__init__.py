"""What people write in YAML: suites and their cells, rules of the gate, spaces of a search; refused by line."""
