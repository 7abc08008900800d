from __future__ import annotations

import pytest

from prunecert.models.holdout import FOREIGN_SPLIT, is_foreign, saw_held_out


@pytest.mark.parametrize(
    ("recipe", "saw"),
    [({"holdout": False}, True), ({"holdout": True}, False), ({}, False), (None, False), ("x", False)],
)
def test_a_recipe_says_whether_images_were_held_out(recipe: object, saw: bool) -> None:
    assert saw_held_out(recipe) is saw


def test_imported_networks_and_what_begins_with_them_are_foreign() -> None:
    assert is_foreign({"imported": "00"}, "validation split; PGD")
    assert is_foreign({}, f"first 10 images of the {FOREIGN_SPLIT}; PGD")
    assert not is_foreign({}, "validation split; PGD")
    assert not is_foreign(None, None)
