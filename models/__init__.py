"""Networks, data, objectives, pruners, checkpoints."""
