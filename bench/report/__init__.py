"""What a run says at its end: the summary, the table, the figures, the HTML page."""
