"""Second-order bounds of the last hidden layer: what of its neurons can't be at their worst all at once."""
