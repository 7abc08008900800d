"""Pruners: ``prune(model, compression, ...) -> Masks``. No pruner knows the objective."""
