"""CROWN over sparse rows: two engines, `units` (unit by unit) and `rows` (in the file's order), and what they share."""
