"""Terms that a recipe adds to an objective's loss: ``term(model, x, y, eps, *, progress, ...) -> tensor``.

The arguments are those of objectives. What intervals a term needs it shares with the objective, if they are for the
same images and radius; see `models.bounds.shared_bounds`.
"""
