"""What a cell's files are recognised by, and what is refused before anything is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prunecert.bench.running.training import plan
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from prunecert.hashing import digest
from prunecert.models.checkpoint import load_card
from prunecert.models.holdout import FOREIGN_SPLIT
from prunecert.models.masks import Masks
from prunecert.models.pipeline import UNMEASURED, Job, Pipeline
from prunecert.models.recipe import Recipe
from prunecert.models.schedules import Stage
from prunecert.models.training import Trainer
from tests.models.conftest import blobs
from tests.models.training_kit import job, pipeline

#: By suite and cell: the first letters of the keys of its pre-trained network and of its own states, for made-up data.
KEYS = Path(__file__).parent / "data" / "keys.json"


def test_cells_of_the_suites_are_recognised_by_the_keys_that_they_always_had() -> None:
    """A training that was interrupted under an older version goes on under this one, and nothing is trained twice.

    Where a suite's recipe was changed on purpose, its lines of the file are to be written anew.
    """
    expected = json.loads(KEYS.read_text(encoding="utf-8"))
    data = {"data": "0" * 64, "images": 45_000}
    actual = {}
    for name in sorted({key.partition("/")[0] for key in expected}):
        for one in plan(load_suite(name), None, name):
            own = digest({**one.pretraining(), **one.recipe.to_dict(), "cell": one.name, **data})
            actual[f"{name}/{one.name}"] = [digest({**one.pretraining(), **data})[:12], own[:12]]
    assert {key: actual.get(key) for key in expected} == expected


@pytest.mark.parametrize(
    ("pruner", "kappas"),
    [
        ("lwm", {"pretrain": 0.75, "finetune": 0.25}),
        ("dense", {"pretrain": 0.75, "finetune": 0.5}),
        # Begins at the initial weights: nothing comes after a pre-training.
        ("drop-grow", {"sparse": 0.75}),
    ],
)
def test_after_pre_training_the_objective_has_its_settings_of_fine_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pruner: str, kappas: dict[str, float]
) -> None:
    met = {}

    def note(self: Trainer, _model: object, stage: Stage, *, masks: Masks | None = None, **_: object) -> Masks | None:
        met[stage.name] = self.objective.keywords["kappa_end"]
        return masks

    monkeypatch.setattr(Trainer, "run", note)
    by = {"kappa_end": {1: 0.5, 10: 0.25}}
    data = {"objective": {"kappa_end": 0.75}, "finetune_objective": by, "batch_size": 8}
    compression = 1.0 if pruner == "dense" else 10.0
    recipe = Recipe.from_dict(data, "ibp").at_compression(compression)
    one = Job("cell", "cnn-small", "ibp", 2 / 255, "2/255", pruner, compression, 0, recipe, "command")
    Pipeline(tmp_path, tmp_path, blobs(16), blobs(8, "val", 1), "cpu", lambda *_: None).run(one)
    assert met == kappas


@pytest.mark.slow
def test_without_a_holdout_all_images_are_trained_on_and_none_are_measured(tmp_path: Path) -> None:
    held = pipeline(tmp_path / "held", images=40)
    whole = pipeline(tmp_path / "whole", images=40)
    usual, last = job("dense", 1.0), job("dense", 1.0, holdout=False)
    assert held.key(usual) != held.key(last)
    assert len(whole.training_images(last)) == 60
    assert len(whole.trainer(last).images) == 60
    card = whole.run(last)
    assert (card.accuracy, card.measured, card.saw_held_out) == ({}, UNMEASURED, True)
    assert card.told() == UNMEASURED
    assert all(row.held_out is None for row in whole.rows)
    with pytest.raises(UserError, match="asks for feedback, and no images are held out; allowed is holdout: true"):
        whole.trainer(last).feedback(whole.initial(last), 0.01)
    other = held.run(usual)
    assert (other.accuracy["images"], other.saw_held_out) == (20, False)
    assert other.told().startswith("clean ")
    assert load_card(tmp_path / "whole" / f"{last.name}.json").recipe["holdout"] is False
    assert "holdout" not in other.recipe


def test_a_subset_of_all_images_is_as_large_as_another(tmp_path: Path) -> None:
    line = Pipeline(tmp_path, tmp_path, blobs(40), blobs(40, "val", 1), "cpu", lambda *_: None, subset=40)
    usual, whole = job("dense", 1.0), job("dense", 1.0, holdout=False)
    assert len(line.training_images(usual)) == len(line.training_images(whole)) == 40


@pytest.mark.slow
def test_what_descends_from_an_imported_network_says_so_in_every_generation(tmp_path: Path) -> None:
    line = pipeline(tmp_path, images=40)
    first = line.run(replace(job("dense", 1.0), name="first"))
    card = tmp_path / "first.json"
    card.write_text(json.dumps({**first.to_json(), "recipe": {"imported": "00"}}))
    parent = "first"
    for name in ("second", "third"):
        child = line.run(replace(job("dense", 1.0, parent=parent), name=name))
        assert child.measured.startswith(FOREIGN_SPLIT)
        assert child.foreign
        parent = name
    whole = line.run(replace(job("dense", 1.0, parent="third", holdout=False), name="whole"))
    assert whole.measured == UNMEASURED
