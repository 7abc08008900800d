"""Two networks of one architecture over one box: how far apart they can be, and whether they decide alike."""
