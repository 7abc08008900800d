"""Bounds through auto_LiRPA."""
