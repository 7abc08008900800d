"""NeuralSAT: driving its solver box by box."""
