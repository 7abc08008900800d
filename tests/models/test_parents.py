from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.running.training import is_done
from prunecert.errors import UserError
from prunecert.models import checkpoint_folders
from prunecert.models.checkpoint import load_card
from prunecert.models.job import Job
from prunecert.models.parents import find_parent, other_parent, parent_file, refuse_as_parent
from prunecert.models.recipe import Recipe

ZOO = checkpoint_folders.ZOO
DENSE, PRUNED = "cnn-small_ibp_eps2_dense_x1_s0", "cnn-small_ibp_eps2_lwm-2of4_x2_s0"


def job(pruner: str = "lwm", parent: str = DENSE, network: str = "cnn-small", **changes: Any) -> Job:
    recipe = Recipe.from_dict({"parent": parent}, "ibp")
    return Job("cell", network, "ibp", 2 / 255, "2/255", pruner, 4.0, 0, recipe, "command", **changes)


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Writes a card with changes into a folder, and returns it."""

    def write(folder: str, name: str = DENSE, of: str = DENSE, **changes: Any) -> Path:
        data = {**json.loads((ZOO / f"{of}.json").read_text()), **changes}
        file = tmp_path / folder / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(data))
        return file

    return write


def test_it_is_looked_for_beside_what_is_trained_then_where_checkpoints_go_then_among_what_ships(
    tmp_path: Path, put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_folders, "CHECKPOINTS", tmp_path / "own")
    assert find_parent(DENSE, tmp_path / "out") == ZOO / f"{DENSE}.json"
    own = put("own")
    assert find_parent(DENSE, tmp_path / "out") == own
    beside = put("out")
    assert find_parent(DENSE, tmp_path / "out") == beside
    assert parent_file(job(), tmp_path / "out") == beside.with_suffix(".safetensors")
    assert find_parent("nobody", tmp_path / "out") is None
    out, folder = str(tmp_path / "out"), str(tmp_path / "own")
    with pytest.raises(UserError) as caught:
        parent_file(job(parent="nobody"), tmp_path / "out")
    assert f"no parent 'nobody' in {out!r}, {folder!r} or among the shipped checkpoints" in str(caught.value)
    monkeypatch.setattr(checkpoint_folders, "CHECKPOINTS", ZOO)
    with pytest.raises(UserError, match="no parent 'nobody' among the shipped checkpoints; allowed is"):
        parent_file(job(parent="nobody"), ZOO)


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (job(parent=PRUNED), r"it is a cnn-small that keeps 107,380 of 214,760 weights; it must be a dense cnn-small"),
        (job(network="cnn-large"), r"it is a cnn-small that keeps .*; it must be a dense cnn-large"),
        (job("lwm-rewind"), "lwm-rewind begins at the initial weights, so that a parent has no use"),
        (
            job(data={"name": "digits", "shape": [1, 8, 8], "classes": 9}),
            r"it is for images of shape \[3, 32, 32\] in 10 .*, and the suite's data has .* \[1, 8, 8\] in 9 classes",
        ),
    ],
)
def test_one_that_does_not_fit_is_refused(one: Job, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parent_file(one, ZOO)


def test_one_that_has_seen_the_held_out_images_is_refused_where_they_are_measured_on(put: Callable[..., Path]) -> None:
    recipe = {**load_card(ZOO / DENSE).recipe, "holdout": False}
    out = put("out", "seen", recipe=recipe).parent
    one = job(parent="seen")
    with pytest.raises(
        UserError, match=r"'seen' is refused: it was trained on the held-out images, too, on which cell is"
    ):
        parent_file(one, out)
    alike = replace(one, recipe=replace(one.recipe, holdout=False))
    assert parent_file(alike, out) == out / "seen.safetensors"


def test_what_is_to_be_trained_first_is_refused_as_its_checkpoint_would_be() -> None:
    dense = replace(job("dense", parent=""), name=DENSE, compression=1.0)
    refuse_as_parent(job(), dense)
    sees_all = replace(dense, recipe=replace(dense.recipe, holdout=False))
    child = job()
    refuse_as_parent(replace(child, recipe=replace(child.recipe, holdout=False)), sees_all)
    for one, parent, why in (
        (child, replace(dense, pruner="lwm"), r"is refused: it is a cnn-small by lwm; it must be a dense cnn-small\."),
        (
            child,
            replace(dense, network="cnn-large"),
            r"is refused: it is a cnn-large by dense; it must be a dense cnn-s",
        ),
        (child, sees_all, "it was trained on the held-out images, too"),
        (job("lwm-rewind"), dense, "lwm-rewind begins at the initial weights"),
    ):
        with pytest.raises(UserError, match=why):
            refuse_as_parent(one, parent)


def test_a_cell_of_another_parent_is_neither_skipped_nor_replaced(tmp_path: Path, put: Callable[..., Path]) -> None:
    """The file that a name stands for is another one after the training."""
    put("out", "new_imported_s0", sha256="a" * 64)
    one = job(parent="new_imported_s0")
    put("out", "cell", recipe=one.recipe.to_dict(), parent_sha256="a" * 64, pruner="lwm", compression=4.0)
    assert is_done(tmp_path / "out", one)
    put("out", "new_imported_s0", sha256="b" * 64)
    with pytest.raises(UserError) as caught:
        is_done(tmp_path / "out", one)
    assert str(caught.value) == (
        f"{tmp_path}/out/cell.json was trained from another parent (its 'new_imported_s0' had the SHA-256 "
        f"aaaaaaaaaaaa…, and '{tmp_path}/out/new_imported_s0.safetensors' has bbbbbbbbbbbb…); allowed are --force, "
        "which replaces it, or another --out."
    )


def test_a_card_without_its_parents_hash_and_one_whose_parent_is_gone_read_on(
    tmp_path: Path, put: Callable[..., Path]
) -> None:
    shipped = load_card(ZOO / PRUNED)
    assert shipped.recipe["parent"] == DENSE
    assert shipped.parent_sha256 == ""
    assert other_parent(shipped, job(), ZOO) == ""
    current = replace(shipped, parent_sha256=load_card(ZOO / DENSE).sha256)
    assert other_parent(current, job(), ZOO) == ""
    assert "from another parent" in other_parent(replace(current, parent_sha256="0" * 64), job(), ZOO)
    assert other_parent(current, job(parent="gone"), ZOO) == ""
    assert other_parent(current, job(parent=""), ZOO) == ""
    # What there is not is not said.
    assert "parent_sha256" not in shipped.to_json()
    assert current.to_json()["parent_sha256"] == current.parent_sha256
    assert load_card(put("out", parent_sha256="c" * 64)).parent_sha256 == "c" * 64
