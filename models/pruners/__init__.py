"""Pruners: ``prune(model, compression, *, ...) -> Masks``, or an `Altered` network. No pruner knows the objective.

Of its keywords, the pipeline gives a pruner those of these that it names:

* ``allocation``: how many weights each layer keeps; see `models.pruners.allocation`;
* ``seed``: the cell's seed;
* ``train``: a `models.pruners.contract.Train`, which trains with the cell's objective and counts epochs.

What it needs of training it `declares`, so that what training lacks is said before anything is trained; so is all that
it refuses before it first trains or looks at data. One file a method; docs/methods.md says what each is and is not.

All other keywords are the pruner's settings, which a recipe may set under ``pruners``; their annotations say which
values are allowed (`models.settings`). Epochs that a pruner does not spend are spent on fine-tuning after it, so that
every cell trains as long as the dense control.
"""
