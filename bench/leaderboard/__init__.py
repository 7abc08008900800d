"""Entries of the leaderboard: their schema, how a finished run becomes some, and the images that they are about."""
