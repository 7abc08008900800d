from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.schema.data import CIFAR10_SIZES, split_sizes
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from prunecert.models.datasets.source import source_of

SUITE = """
name: own
description: Own data
{data}
cells:
  - {{networks: [cnn-small], objectives: [ibp], eps: [2/255], compression: [1]}}
verify: {{images: {images}, cascade: [sparse-ibp], timeouts: {{sparse-ibp: 5}}}}
"""


def write(path: Path, data: str, images: int = 10) -> str:
    path.write_text(SUITE.format(data=data, images=images))
    return str(path)


def test_a_suite_names_its_data_or_means_cifar10(tmp_path: Path) -> None:
    usual = load_suite(write(tmp_path / "own.yaml", ""))
    named = load_suite(write(tmp_path / "own.yaml", "data: cifar10"))
    assert usual.data == named.data == source_of("cifar10")
    assert usual.to_json()["data"] == "cifar10"
    assert usual.digest() == named.digest()
    digits = load_suite("digits-quickstart")
    assert (digits.data, digits.to_json()["data"]) == (source_of("digits"), "digits")


def test_an_entry_says_where_the_images_lie(tmp_path: Path) -> None:
    entry = "data: {name: mine, shape: [1, 4, 4], classes: 3, reader: npz, options: {path: mine.npz}}"
    suite = load_suite(write(tmp_path / "own.yaml", entry, images=1_000_000))
    assert (suite.data.shape, suite.data.classes, suite.data.options) == ((1, 4, 4), 3, {"path": "mine.npz"})
    assert suite.to_json()["data"]["reader"] == "npz"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("data: mnst", r"own\.yaml, line 4.*Did you mean 'mnist'"),
        ("data: npz", "refused without a shape"),
        ("data: {name: mine, shape: [1, 4], classes: 3, reader: npz, options: {path: x}}", "channels, height"),
        ("data: {name: mine, shap: [1, 4, 4]}", "Did you mean 'shape'"),
        ("data: 3", "it must be"),
    ],
)
def test_bad_entries_are_named_by_file_and_line(data: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        load_suite(write(tmp_path / "own.yaml", data))


def test_more_images_than_cifar10_has_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="within 1 and 10000"):
        load_suite(write(tmp_path / "own.yaml", "", images=10_001))
    assert split_sizes(source_of("cifar10")) is CIFAR10_SIZES
    assert split_sizes(source_of("mnist"))["test"] > 10_000
