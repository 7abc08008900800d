"""CIFAR-10 through torchvision; where no copy can be had, the 20 images that foolbox ships."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.vision import import_torchvision

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_FOLDER = "cifar-10-batches-py"
_ARCHIVE = "cifar-10-python.tar.gz"
_VALIDATION_PER_CLASS = 500
_VALIDATION_SEED = 20190614  # fixed for ever: another split would be another experiment

#: Copies that the user has been warned of.
_warned: set[str] = set()

SAMPLE_BANNER = (
    "No CIFAR-10 here and no network: using the 20 sample images that foolbox ships. "
    "This run only shows that everything works and is NOT publishable. "
    "For the real data set CIFAR10_ROOT or pass --data-root."
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of one split.

    Args:
        images: float32 [N, C, H, W] in [0, 1].
        labels: int64 [N], from 0.
        indices: int64 [N], positions in the original split (``val`` is cut from the training set).
        split: ``train``, ``val`` or ``test``.
        fingerprint: SHA-256 of the pixels and labels of the whole original split.
        official: Whether the files have the published checksums.
        sample: Whether this is the built-in sample.
        source: Where the images come from, in words without a path.
        classes: How many classes there are.
        name: The data set's.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    split: Split
    fingerprint: str
    official: bool
    sample: bool
    source: str
    classes: int = 10
    name: str = "cifar10"

    def __len__(self) -> int:
        return len(self.labels)


def joined(train: Dataset, held_out: Dataset) -> Dataset:
    """Returns a training split together with what was held out of it, in the order in which the images lie."""
    indices = np.concatenate([train.indices, held_out.indices])
    order = np.argsort(indices, kind="stable")
    return replace(
        train,
        images=np.concatenate([train.images, held_out.images])[order],
        labels=np.concatenate([train.labels, held_out.labels])[order],
        indices=indices[order],
    )


def first_images(data: Dataset, count: int | None) -> Dataset:
    """Returns the first images of a split; all of them for None."""
    if count is None:
        return data
    return replace(data, images=data.images[:count], labels=data.labels[:count], indices=data.indices[:count])


def load(split: Split, root: Path | None = None, *, download: bool = True, allow_sample: bool = True) -> Dataset:
    """Loads a split of CIFAR-10.

    Looked for in this order: `root`, the environment variable ``CIFAR10_ROOT``, the local folder ``data``,
    torchvision's download into ``data``, the built-in sample.

    Args:
        split: ``train`` (45,000 images), ``val`` (5,000, 500 a class, cut from the training set) or ``test``.
        root: Folder that holds ``cifar-10-batches-py``.
        download: Whether to try a download where no copy lies.
        allow_sample: Whether the built-in sample may stand in (only for ``test``).

    Raises:
        UserError: A named folder holds no CIFAR-10, or none can be had at all.
    """
    if split not in SPLITS:
        raise UserError(f"Unknown split {split!r}. Available: {', '.join(SPLITS)}.")
    folder = _find(root)
    problem = ""
    if folder is None and download:
        folder, problem = _download(Path("data"))
    if folder is None:
        if allow_sample and split == "test":
            print(SAMPLE_BANNER, file=sys.stderr)
            return _sample()
        raise UserError(
            f"CIFAR-10 ({split} split) is needed and no copy was found in --data-root, CIFAR10_ROOT or data/"
            + (f", and the download failed ({problem})" if problem else "")
            + f"; put the folder {_FOLDER!r} of the Python version into one of them."
        )
    return _cut(folder, split)


def _find(root: Path | None) -> Path | None:
    """Returns the first folder with a copy; a folder that the user named must have one."""
    named = [("--data-root", root)]
    if os.environ.get("CIFAR10_ROOT"):
        named.append(("CIFAR10_ROOT", Path(os.environ["CIFAR10_ROOT"])))
    for origin, path in named:
        if path is None:
            continue
        for candidate in (path, path.parent if path.name == _FOLDER else path):
            if (candidate / _FOLDER).is_dir():
                return candidate
        for archive in (path, path / _ARCHIVE):
            if archive.name == _ARCHIVE and archive.is_file():
                # Unpacked by whoever owns the folder: nothing is written where no output was asked for.
                raise UserError(
                    f"{origin} is {str(path)!r}, where CIFAR-10 is still packed; unpack it with: "
                    f"tar -xzf {shlex.quote(str(archive))} -C {shlex.quote(str(archive.parent))}"
                    + (f" and give {str(archive.parent)!r}." if archive == path else "")
                )
        raise UserError(
            f"{origin} is {str(path)!r}, which holds no CIFAR-10: the folder {_FOLDER!r} (Python version) must "
            "lie in it."
        )
    local = Path("data")
    return local if (local / _FOLDER).is_dir() else None


def _download(target: Path) -> tuple[Path | None, str]:
    """Downloads with torchvision, with its progress bar; returns the folder, or None and the reason."""
    import_torchvision()
    from torchvision.datasets import CIFAR10

    try:
        CIFAR10(str(target), train=False, download=True)
    except (OSError, RuntimeError) as error:
        return None, str(error).splitlines()[0] if str(error) else type(error).__name__
    return target, ""


def _read(folder: Path, train: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], bool]:
    """Reads uint8 [N, 32, 32, 3] and labels; the flag says whether the checksums are the published ones."""
    import_torchvision()
    from torchvision.datasets import CIFAR10

    class Unchecked(CIFAR10):  # type: ignore[misc]
        """The same files, whatever their MD5 sums."""

        def _check_integrity(self) -> bool:
            return True

        def _load_meta(self) -> None:
            """The class names' file is checked by its sum, too, and not needed."""

    official = True
    try:
        data = CIFAR10(str(folder), train=train)
    except RuntimeError:
        # torchvision refuses files whose MD5 differs; a copy may still be one, so its content is checked instead.
        official = False
        try:
            data = Unchecked(str(folder), train=train)
        except Exception as error:
            raise UserError(
                f"CIFAR-10 in {str(folder / _FOLDER)!r} cannot be read ({type(error).__name__}: {error}); a "
                "whole copy of the Python version is needed."
            ) from error
    images, labels = np.asarray(data.data), np.asarray(data.targets, dtype=np.int64)
    expected = 50_000 if train else 10_000
    if (
        images.shape != (expected, 32, 32, 3)
        or images.dtype != np.uint8
        or not np.all(np.bincount(labels, minlength=10) == expected // 10)
    ):
        raise UserError(
            f"CIFAR-10 in {str(folder / _FOLDER)!r} is not whole: {images.shape} images, {len(labels)} labels; needed "
            f"are {expected:,} images of 32x32x3, {expected // 10:,} a class."
        )
    return images, labels, official


def _cut(folder: Path, split: Split) -> Dataset:
    images, labels, official = _read(folder, train=split != "test")
    fingerprint = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    if not official and str(folder) not in _warned:
        _warned.add(str(folder))
        print(
            "warning: this copy of CIFAR-10 is not the official one (checksums differ); its fingerprint "
            "is recorded with every result.",
            file=sys.stderr,
        )
    indices = np.arange(len(labels))
    if split != "test":
        held_out = validation_indices(labels)
        indices = held_out if split == "val" else np.setdiff1d(indices, held_out)
    pixels = images[indices].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    return Dataset(
        images=np.ascontiguousarray(pixels),
        labels=labels[indices],
        indices=indices.astype(np.int64),
        split=split,
        fingerprint=fingerprint,
        official=official,
        sample=False,
        source="CIFAR-10" if official else "CIFAR-10 (unofficial copy)",
    )


def validation_indices(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns the positions of the held-out images: 500 a class of the training set, sorted, always the same."""
    generator = np.random.default_rng(_VALIDATION_SEED)
    chosen = [
        generator.choice(np.flatnonzero(labels == label), _VALIDATION_PER_CLASS, replace=False) for label in range(10)
    ]
    return np.sort(np.concatenate(chosen))


def _sample() -> Dataset:
    """Reads the 20 CIFAR-10 images that foolbox ships; their file names end in the label."""
    from PIL import Image

    # Found, not imported: foolbox's import is slow, and only its folder of images is wanted.
    package = importlib.util.find_spec("foolbox")
    folders = list(package.submodule_search_locations or ()) if package else []
    files = sorted(file for folder in folders for file in (Path(folder) / "data").glob("cifar10_*.png"))
    if not files:
        raise UserError("The built-in sample is missing from the installed foolbox package; reinstall foolbox>=3.3.4.")
    images = np.stack([np.asarray(Image.open(file).convert("RGB"), dtype=np.uint8) for file in files])
    labels = np.asarray([int(file.stem.rpartition("_")[2]) for file in files], dtype=np.int64)
    return Dataset(
        images=np.ascontiguousarray(images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)),
        labels=labels,
        indices=np.arange(len(files), dtype=np.int64),
        split="test",
        fingerprint=hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
        official=False,
        sample=True,
        source="the 20 sample images of foolbox",
    )
