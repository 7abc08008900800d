"""What is known after a run: rows, what they mean together, and the files that are made of them; no rendering."""
