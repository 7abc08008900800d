"""The engine that walks back through the rows as the file has them: for very sparse networks."""
