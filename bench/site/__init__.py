"""The leaderboard as a static site: what is shown, its figures, its pages, its downloads."""
