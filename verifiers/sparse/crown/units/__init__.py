"""The engine that walks back unit by unit: for networks whose coefficients fill up."""
