"""Recipes of a suite: merged from the general to the special, and refused by their keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from tests.bench.conftest import SUITE
from tests.bench.schema.test_suite import write


def test_recipes_are_merged_from_general_to_special(tmp_path: Path) -> None:
    recipes = "recipes:\n  default: {epochs: 1, lr: 2}\n  cnn-small: {epochs: 3}\n  cnn-small/ibp: {lr: 4}\n"
    suite = load_suite(write(tmp_path, SUITE + recipes))
    assert suite.recipe("cnn-small", "ibp") == {"epochs": 3, "lr": 4}
    assert suite.recipe("cnn-small", "pgd") == {"epochs": 3, "lr": 2}
    assert suite.recipe("vgg16", "ibp") == {"epochs": 1, "lr": 2}


def test_one_compression_may_have_keys_of_its_own(tmp_path: Path) -> None:
    recipes = "recipes:\n  cnn-small/ibp: {epochs: 3, lr: 4}\n  cnn-small/ibp/20x: {epochs: 9}\n"
    suite = load_suite(write(tmp_path, SUITE + recipes))
    assert suite.recipe("cnn-small", "ibp", 20.0) == {"epochs": 9, "lr": 4}
    assert suite.recipe("cnn-small", "ibp", 10.0) == {"epochs": 3, "lr": 4}
    assert suite.recipe("cnn-small", "ibp") == {"epochs": 3, "lr": 4}
    assert suite.recipe("cnn-small", "pgd", 20.0) == {}


def test_one_pruner_may_have_keys_of_its_own(tmp_path: Path) -> None:
    recipes = (
        "recipes:\n  cnn-small/ibp: {epochs: 3, lr: 4, l1: 5, crop: 6}\n"
        "  cnn-small/ibp/lwm: {epochs: 9, lr: 10, l1: 11}\n"
        "  cnn-small/ibp/20x: {lr: 12, l1: 13}\n  cnn-small/ibp/lwm/20x: {l1: 14}\n  cnn-small/ibp/dense: {crop: 15}\n"
    )
    suite = load_suite(write(tmp_path, SUITE + recipes))
    assert suite.recipe("cnn-small", "ibp", 20.0, "lwm") == {"epochs": 9, "lr": 12, "l1": 14, "crop": 6}
    assert suite.recipe("cnn-small", "ibp", 20.0, "hydra") == {"epochs": 3, "lr": 12, "l1": 13, "crop": 6}
    assert suite.recipe("cnn-small", "ibp", 10.0, "lwm") == {"epochs": 9, "lr": 10, "l1": 11, "crop": 6}
    assert suite.recipe("cnn-small", "ibp", 1.0, "dense") == {"epochs": 3, "lr": 4, "l1": 5, "crop": 15}
    assert suite.recipe("cnn-small", "ibp", 20.0) == {"epochs": 3, "lr": 12, "l1": 13, "crop": 6}


def test_a_pruner_that_there_is_not_has_no_recipe(tmp_path: Path) -> None:
    path = write(tmp_path, SUITE + "recipes:\n  cnn-small/ibp/hydr/100x: {epochs: 9}\n")
    with pytest.raises(UserError, match=r"cnn-small/ibp/hydr/100x.*Did you mean 'hydra'"):
        load_suite(path)


@pytest.mark.parametrize(
    "text", ["20", "0.5x", "20.0x", "infx", "nanx", "twentyx", "20x/1", "lwm/20", "20x/lwm", "lwm/", ""]
)
def test_what_is_no_compression_has_no_recipe(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, SUITE + f"recipes:\n  cnn-small/ibp/{text}: {{epochs: 9}}\n")
    with pytest.raises(UserError, match=r"is no compression; it must be a number from 1 on and an x, e\.g\. 100x"):
        load_suite(path)
