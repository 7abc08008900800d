"""From questions to rows: who is asked what next, by which processes, on which machines, and what is written when."""
