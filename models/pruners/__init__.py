"""Pruners: ``prune(model, compression, *, ...) -> Masks``. No pruner knows the objective.

Of its keywords, the pipeline gives a pruner those of these that it names:

* ``allocation``: how many weights each layer keeps; see `models.pruners.allocation`;
* ``seed``: the cell's seed;
* ``train``: a `models.pruners.contract.Train`, which trains with the cell's objective and counts epochs.

All other keywords are the pruner's settings, which a recipe may set under ``pruners``. Epochs that a pruner does not
spend are spent on fine-tuning after it, so that every cell trains as long as the dense control.
"""
