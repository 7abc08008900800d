"""What is read from a file of packed data is what was written, bit by bit, and nothing else is taken for one."""

from __future__ import annotations

import json
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.models.data import Dataset, Split
from prunecert.models.datasets import packed
from prunecert.models.datasets.packed import read_description, read_packed, write_packed
from prunecert.models.datasets.source import DataSource, load_split, source_of
from tests.models.conftest import blobs


def levels(count: int, shape: tuple[int, int, int] = (3, 8, 8), split: Split = "train", seed: int = 0) -> Dataset:
    """Returns images of 256 levels, as readers make them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape)).astype(np.float32) / np.float32(255)
    labels = rng.integers(0, 10, count)
    return Dataset(images, labels, rng.permutation(count), split, "a" * 64, False, False, "somewhere")


def read(file: Path, data: Dataset) -> Dataset:
    channels, height, width = data.images.shape[1:]
    return read_packed(file, data.split, name=data.name, shape=(channels, height, width), classes=data.classes)


def assert_same(one: Dataset, other: Dataset) -> None:
    for key in ("images", "labels", "indices"):
        first, second = getattr(one, key), getattr(other, key)
        assert (first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes()), key
    facts = ("split", "fingerprint", "official", "sample", "source", "classes", "name")
    assert [getattr(one, key) for key in facts] == [getattr(other, key) for key in facts]


@settings(max_examples=15)
@given(
    st.sampled_from([1, 2, 3, 4]),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 249, 250, 251, 7]),
    st.integers(0, 3),
    st.booleans(),
)
def test_what_is_read_is_what_was_written(
    channels: int, height: int, width: int, train: int, val: int, exact: bool
) -> None:
    splits = [levels(train, (channels, height, width)), levels(val, (channels, height, width), "val", 1)]
    if not exact:
        splits[0].images[-1, 0, 0, 0] = np.nextafter(np.float32(0.5), np.float32(1))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.packed"
        description = write_packed(splits, file)
        assert description.encoding == ("float32" if not exact else "webp" if channels in (1, 3) else "uint8")
        for data in splits:
            assert_same(read(file, data), data)
        size = file.stat().st_size
        write_packed(splits, file)
        assert file.stat().st_size == size


def test_pictures_take_less_than_their_pixels(tmp_path: Path) -> None:
    smooth = blobs(50)
    smooth = replace(smooth, images=np.rint(smooth.images * 32).astype(np.uint8).astype(np.float32) / np.float32(255))
    write_packed([smooth], tmp_path / "data.packed")
    assert (tmp_path / "data.packed").stat().st_size < 0.8 * smooth.images.size
    assert_same(read(tmp_path / "data.packed", smooth), smooth)


def test_large_images_are_in_mosaics_that_webp_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_LONGEST", 20)
    monkeypatch.setattr(packed, "_MOST_PIXELS", 8 * 8 * 3)
    data = levels(11)
    assert write_packed([data], tmp_path / "data.packed").encoding == "webp"
    assert_same(read(tmp_path / "data.packed", data), data)
    monkeypatch.setattr(packed, "_MOST_PIXELS", 8 * 8 - 1)
    assert write_packed([data], tmp_path / "data.packed").encoding == "uint8"


def test_a_split_is_found_where_the_file_is_named_as_the_data_s_place(tmp_path: Path) -> None:
    small = [levels(5, split="train"), levels(3, split="val")]
    file = tmp_path / "small.packed"
    for name, reader in (("cifar10", "cifar10"), ("mine", "arrays")):
        splits = [replace(data, name=name) for data in small]
        write_packed(splits, file)
        source = DataSource(name, (3, 8, 8), 10, reader)
        for data in splits:
            assert_same(load_split(source, data.split, file), data)
        with pytest.raises(UserError, match=r"small\.packed has no test split, only train and val"):
            load_split(source, "test", file)
    with pytest.raises(UserError, match=r"holds the data set 'mine' .*\[3, 8, 8\].*needed is 'cifar10' with \[3, 32"):
        load_split(source_of("cifar10"), "train", file)


def test_splits_of_different_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different data sets"):
        write_packed([levels(3), replace(levels(3, split="val"), fingerprint="b" * 64)], tmp_path / "data.packed")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("packed") / "good.packed"
    write_packed([levels(30)], file)
    return file


@pytest.mark.parametrize("cut", [0, 10, 1000, -1, -30])
def test_a_file_that_is_cut_off_is_refused(good: Path, tmp_path: Path, cut: int) -> None:
    file = tmp_path / "cut.packed"
    file.write_bytes(good.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"cut\.packed is no whole file of packed data .*bring it here again"):
        read(file, levels(30))


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_never_change_images(good: Path, tmp_path: Path, seed: int) -> None:
    data = bytearray(good.read_bytes())
    for place in np.random.default_rng(seed).integers(0, len(data), 20):
        data[place] ^= 0xFF
    file = tmp_path / "flipped.packed"
    file.write_bytes(data)
    with pytest.raises(UserError):
        read(file, levels(30))


def rewrite(good: Path, file: Path, **members: Any) -> None:
    """Writes the file anew with other members; those that are None are left out."""
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            if (data := members.get(name.replace(".", "_"), old.read(name))) is not None:
                new.writestr(name, data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "has schema version 2, newer than"),
        ({"encoding": "png"}, "unknown encoding 'png'"),
        ({"encoding": "uint8"}, "is no whole file of packed data"),
        ({"images": {"train": 29}}, "29 images were announced"),
        ({"images": {"train": 300}}, "1 mosaics for 300 images"),
        ({"classes": 2}, "holds the data set 'cifar10' .* 2 classes"),
        ({"more": 1}, "unknown field `more`"),
        ({"shape": [3, 8]}, "is no whole file of packed data"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(
    good: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with zipfile.ZipFile(good) as archive:
        description = json.loads(archive.read("description.json"))
    file = tmp_path / "odd.packed"
    rewrite(good, file, description_json=json.dumps({**description, **changes}))
    with pytest.raises(UserError, match=message):
        read(file, levels(30))


def test_members_that_lack_or_lie_are_refused(good: Path, tmp_path: Path) -> None:
    file = tmp_path / "odd.packed"
    for member in ("train_labels_npy", "train_00000_webp", "description_json"):
        rewrite(good, file, **{member: None})
        with pytest.raises(UserError, match="is no whole file of packed data"):
            read(file, levels(30))
    labels = packed._array_bytes(np.full(30, 10))
    rewrite(good, file, train_labels_npy=labels)
    with pytest.raises(UserError, match="a label is no class"):
        read(file, levels(30))
    rewrite(good, file, train_labels_npy=labels + b"0" * 1_000_000)
    with pytest.raises(UserError, match=r"train\.labels\.npy is too large"):
        read(file, levels(30))


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.packed").write_text("hello")
    with pytest.raises(UserError, match="is no whole file of packed data"):
        read_description(tmp_path / "text.packed")
    (tmp_path / "folder.packed").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read_description(tmp_path / "folder.packed")
    with pytest.raises(FileNotFoundError):
        read_description(tmp_path / "none.packed")
