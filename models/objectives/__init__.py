"""Training objectives: ``loss(model, x, y, eps, *, progress, ...) -> tensor``.

`x` is [N, C, H, W] in [0, 1], `y` [N], `eps` an l-infinity radius in pixels of [0, 1], `progress` how far the
ramp of eps has come, in [0, 1]. Further keywords are the objective's settings, which a recipe may set; their
annotations say which values are allowed (`models.settings`).
"""
