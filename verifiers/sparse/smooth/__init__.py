"""Networks with Sigmoid and Tanh: relaxation, bounds, attack, and branch and bound of their own."""
