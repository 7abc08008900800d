"""Projected gradient descent through foolbox."""
