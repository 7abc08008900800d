from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from prunecert.errors import UserError
from prunecert.models.job import Job
from prunecert.models.recipe import Recipe


def job(pruner: str = "dense", ratio: float = 1.0, network: str = "cnn-small", **recipe: Any) -> Job:
    whole = Recipe.from_dict(recipe, "ibp")
    return Job("cell", network, "ibp", 2 / 255, "2/255", pruner, ratio, 0, whole, "command")


def test_no_cell_is_its_own_parent() -> None:
    with pytest.raises(UserError, match=r"^cell is refused: its recipe's parent has its own name.*; allowed are "):
        job(parent="cell")
    assert job(parent="cell_imported_s0").recipe.parent == "cell_imported_s0"


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (job(network="vgg16"), "cell: ibp needs bounds of vgg16"),
        (job("lwm", 1e5), "cell: Keeping 2 weights is refused"),
        (job("filter-l1", 200.0), "cell: Compression 200 is refused for filter pruning"),
        (job("drop-grow", 10.0, allocation="2of4"), "cell: .*this pruner keeps to no pattern"),
        (job("inheritance", 10.0, pruners={"inheritance": {"lean": 0.7, "full": 0.7}}), "cell: lean 0.7 and full 0.7"),
        (job(crop=32), "cell: crop is 32; for images of 32x32 pixels it must be below 32"),
    ],
)
def test_what_it_cannot_be_is_refused(one: Job, message: str) -> None:
    with pytest.raises(UserError, match=message):
        one.refuse_unreachable()


def test_crops_are_those_of_its_images() -> None:
    digits = {"name": "digits", "shape": [1, 8, 12], "classes": 10}
    with pytest.raises(UserError, match="for images of 8x12 pixels it must be below 8"):
        replace(job(crop=8), data=digits).refuse_unreachable()
    replace(job(crop=7), data=digits).refuse_unreachable()
    replace(job(crop=8, augment=False), data=digits).refuse_unreachable()


def test_epochs_and_beginnings() -> None:
    grown, pruned, adopted = job("drop-grow", 10.0), job("lwm", 10.0), job("lwm", 10.0, parent="p")
    assert [one.from_scratch for one in (grown, pruned, adopted)] == [True, False, False]
    assert [one.pretrains for one in (grown, pruned, adopted)] == [False, True, False]
    assert pruned.epochs == Recipe.prune_epochs + Recipe.finetune_epochs
    assert pruned.pretraining() == job("dense").pretraining()
    assert pruned.pretraining() != adopted.pretraining()
