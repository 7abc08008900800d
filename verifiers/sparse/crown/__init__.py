"""CROWN over sparse rows: two engines, `units` (neuron by neuron) and `rows` (in the file's order), and what they share."""
