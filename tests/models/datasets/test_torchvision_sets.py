"""torchvision's data sets, on small files of the true format."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from prunecert.errors import UserError
from prunecert.models.data import SPLITS
from prunecert.models.datasets.source import load_split, source_of

Images = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _unnamed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CIFAR100", "MNIST", "FASHION_MNIST", "SVHN", "GTSRB"):
        monkeypatch.delenv(f"{name}_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)


def pixels(*shape: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def idx(path: Path, array: Images) -> None:
    """Writes an array as MNIST's files have it: the type, the sizes in big endian, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(head + array.tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnist_and_fashion_mnist(name: str, folder: str, tmp_path: Path) -> None:
    images, labels = pixels(40, 28, 28), np.arange(40, dtype=np.uint8) % 10
    for part in ("train", "t10k"):
        idx(tmp_path / folder / "raw" / f"{part}-images-idx3-ubyte", images)
        idx(tmp_path / folder / "raw" / f"{part}-labels-idx1-ubyte", labels)
    data = load_split(source_of(name), "test", tmp_path)
    assert np.array_equal(data.images, images[:, None].astype(np.float32) / 255)
    assert np.array_equal(data.labels, labels)
    assert data.official
    assert data.name == name


def test_cifar100(tmp_path: Path) -> None:
    images, labels = pixels(100, 3, 32, 32), list(range(100))
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for part in ("train", "test"):
        (folder / part).write_bytes(
            pickle.dumps({"data": images.reshape(100, -1), "fine_labels": labels, "coarse_labels": labels})
        )
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(label) for label in labels]}))
    data = load_split(source_of("cifar100"), "test", tmp_path)
    assert np.array_equal(data.images, images.astype(np.float32) / 255)
    assert data.labels.tolist() == labels
    assert data.classes == 100
    # Its sums are not the published ones.
    assert not data.official


def test_svhn(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    images, labels = pixels(20, 3, 32, 32), np.arange(20) % 10 + 1
    for part in ("train", "test"):
        scipy_io.savemat(tmp_path / f"{part}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": labels[:, None]})
    data = load_split(source_of("svhn"), "test", tmp_path)
    assert np.array_equal(data.images, images.astype(np.float32) / 255)
    # The files have 10 for the digit 0.
    assert data.labels.tolist() == (labels % 10).tolist()


def test_gtsrb(tmp_path: Path) -> None:
    from PIL import Image

    base = tmp_path / "gtsrb"
    for label in (0, 42):
        folder = base / "GTSRB" / "Training" / f"{label:05}"
        folder.mkdir(parents=True)
        for number in range(10):
            Image.fromarray(np.full((20 + number, 25, 3), 5 * label, dtype=np.uint8)).save(folder / f"{number}.ppm")
    testing = base / "GTSRB" / "Final_Test" / "Images"
    testing.mkdir(parents=True)
    Image.fromarray(np.full((40, 30, 3), 7, dtype=np.uint8)).save(testing / "00000.ppm")
    (base / "GT-final_test.csv").write_text(
        "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n00000.ppm;30;40;5;5;25;35;17\n"
    )
    test = load_split(source_of("gtsrb"), "test", tmp_path)
    assert (test.images.shape, test.labels.tolist(), test.classes) == ((1, 3, 32, 32), [17], 43)
    assert (test.images == np.float32(7) / np.float32(255)).all()
    train, val = (load_split(source_of("gtsrb"), split, tmp_path) for split in SPLITS[:2])
    assert (len(train), len(val)) == (18, 2)


@pytest.mark.parametrize("name", ["cifar100", "mnist", "fashion-mnist", "svhn", "gtsrb"])
def test_what_is_not_there_is_named_and_nothing_is_fetched(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"'{name}' is needed and isn't in .*--data-root or"):
        load_split(source_of(name), "test", tmp_path, download=False)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_cifar10_under_another_name_is_the_same_data(tmp_path: Path) -> None:
    images, labels = pixels(10, 3, 32, 32), list(range(10))
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(pickle.dumps({"data": images.reshape(10, -1), "labels": labels}))
    source = source_of({"name": "small-cifar", "shape": [3, 32, 32], "classes": 10, "reader": "cifar10"})
    data = load_split(source, "test", tmp_path)
    assert np.array_equal(data.images, images.astype(np.float32) / 255)
    assert source.card()["name"] == data.name == "small-cifar"
