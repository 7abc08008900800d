"""Data comes from where the documentation says, and says where it came from."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.models import data


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A whole CIFAR-10 in the right layout with made-up pixels, so an unofficial one."""
    folder = tmp_path / "copy" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels = generator.integers(0, 256, (10_000, 3072), dtype=np.uint8)
        labels = [int(label) for label in np.arange(10_000) % 10]
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": labels}))
    return folder.parent


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    monkeypatch.setattr(data, "_warned", set())
    monkeypatch.chdir(tmp_path)


def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_download", lambda target: (None, "no network"))


@pytest.mark.parametrize("form", ["folder", "file"])
def test_a_packed_copy_is_named_with_the_command_that_unpacks_it(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "my data"
    folder.mkdir()
    archive = folder / "cifar-10-python.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(
        UserError, match=r"still packed; unpack it with: tar -xzf '.*/my data/cifar-10-python.tar.gz' -C"
    ):
        data.load("test", folder if form == "folder" else archive)
    # Nothing is written where no output was asked for.
    assert list(folder.iterdir()) == [archive]


@pytest.mark.slow
def test_an_unofficial_copy_is_used_with_a_warning(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = data.load("test", copy)
    assert "not the official one" in capsys.readouterr().err
    assert not test.official
    assert not test.sample
    assert test.images.shape == (10_000, 3, 32, 32)
    assert test.images.dtype == np.float32
    assert test.images.min() == 0
    assert test.images.max() == 1
    raw = pickle.loads((copy / "cifar-10-batches-py" / "test_batch").read_bytes())
    assert np.array_equal(np.rint(test.images[7] * 255).astype(np.uint8).ravel(), raw["data"][7])
    data.load("test", copy)
    assert capsys.readouterr().err == "", "once is enough"


@pytest.mark.slow
def test_validation_is_cut_from_training(copy: Path) -> None:
    train, val = data.load("train", copy), data.load("val", copy)
    whole = data.joined(train, val)
    assert np.array_equal(whole.indices, np.arange(50_000))
    assert (whole.split, whole.fingerprint) == ("train", train.fingerprint)
    for part in (train, val):
        assert np.array_equal(whole.images[part.indices], part.images)
        assert np.array_equal(whole.labels[part.indices], part.labels)
    assert len(train) == 45_000
    assert len(val) == 5_000
    assert not set(train.indices) & set(val.indices)
    assert np.bincount(val.labels).tolist() == [500] * 10
    assert train.fingerprint == val.fingerprint
    assert np.array_equal(data.load("val", copy).indices, val.indices)


@pytest.mark.slow
def test_the_order_of_places(copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_download(monkeypatch)
    monkeypatch.setenv("CIFAR10_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"CIFAR10_ROOT is .*nowhere.*holds no CIFAR-10"):
        data.load("test")
    assert len(data.load("test", copy)) == 10_000, "--data-root comes first"
    monkeypatch.setenv("CIFAR10_ROOT", str(copy / "cifar-10-batches-py"))
    assert not data.load("test").sample, "the inner folder is understood, too"
    monkeypatch.delenv("CIFAR10_ROOT")
    (tmp_path / "data").symlink_to(copy)
    assert not data.load("test").sample


def test_the_sample_stands_in_with_a_banner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_download(monkeypatch)
    sample = data.load("test")
    assert "NOT publishable" in capsys.readouterr().err
    assert sample.sample
    assert sample.images.shape == (20, 3, 32, 32)
    assert sample.labels[0] == 3, "the first test image is a cat"
    with pytest.raises(UserError, match=r"train split.* needed .*no network"):
        data.load("train")
    with pytest.raises(UserError, match="test split"):
        data.load("test", allow_sample=False)


def test_damaged_copies_are_refused(copy: Path) -> None:
    batch = copy / "cifar-10-batches-py" / "test_batch"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        data.load("test", copy)
    batch.write_bytes(pickle.dumps({"data": np.zeros((10, 3072), dtype=np.uint8), "labels": [0] * 10}))
    with pytest.raises(UserError, match="is not whole"):
        data.load("test", copy)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match="Unknown split 'dev'"):
        data.load("dev")  # type: ignore[arg-type]


@pytest.mark.cifar10
@pytest.mark.skipif("CIFAR10_ROOT" not in os.environ, reason="CIFAR10_ROOT is not set")
class TestRealCopy:
    root = os.environ.get("CIFAR10_ROOT", "")

    def test_it_is_cifar10(self) -> None:
        test = data.load("test", Path(self.root))
        assert test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
        assert test.images.mean(axis=(0, 2, 3)) == pytest.approx([0.4942, 0.4851, 0.4504], abs=1e-3)

    def test_the_sample_is_its_beginning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        no_download(monkeypatch)
        sample, test = data.load("test"), data.load("test", Path(self.root))
        assert np.array_equal(sample.labels, test.labels[:20])
        assert np.abs(sample.images - test.images[:20]).max() < 0.02
