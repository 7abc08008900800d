"""Which data a suite is about, as plain data, and its splits: train, val (held out of it) and test."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError, did_you_mean
from prunecert.models import data as cifar10
from prunecert.models.data import SPLITS, Dataset, Split
from prunecert.models.datasets import DATASETS, SHAPES
from prunecert.models.datasets.packed import is_packed, read_packed
from prunecert.models.datasets.reading import Pixels
from prunecert.registry import imported

CIFAR10 = "cifar10"
#: Of each class of the training set, a tenth is held out, and at most so many.
_HELD_OUT_SHARE, _HELD_OUT_MOST = 0.1, 500
_HELD_OUT_SEED = 20190614
#: What a reader is always given.
_LENT = frozenset({"part", "root", "download"})


@dataclass(frozen=True)
class DataSource:
    """A data set as a suite names it.

    Args:
        name: What it is called, in tables and on cards.
        shape: Channels, height, width of an image.
        classes: How many classes it has.
        reader: A name in `DATASETS`, or ``module:function``.
        options: Keywords for the reader.
    """

    name: str = CIFAR10
    shape: tuple[int, int, int] = (3, 32, 32)
    classes: int = 10
    reader: str = CIFAR10
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def shipped(self) -> bool:
        """Whether its name alone says what it is."""
        return self == DataSource(self.name, *SHAPES.get(self.name, ((0, 0, 0), 0)), self.name)

    def to_json(self) -> str | dict[str, Any]:
        """Returns plain data: its name, where that says it all."""
        if self.shipped:
            return self.name
        return {
            "name": self.name,
            "shape": list(self.shape),
            "classes": self.classes,
            "reader": self.reader,
            "options": dict(self.options),
        }

    def card(self) -> dict[str, Any]:
        """Returns what a checkpoint's card says of it; nothing for CIFAR-10, for which all older ones are."""
        if self.name == CIFAR10:
            return {}
        return {"name": self.name, "shape": list(self.shape), "classes": self.classes}


def source_of(description: str | Mapping[str, Any]) -> DataSource:
    """Returns the data set that a suite names, by a name or by an entry.

    Args:
        description: A name in `DATASETS`; or a mapping with ``name``, ``shape``, ``classes``, ``reader`` and
            ``options`` for it.

    Example:
        >>> source_of("digits")
        DataSource(name='digits', shape=(1, 8, 8), classes=10, reader='digits', options={})

    Raises:
        UserError: The name is unknown, a key is missing or unknown, or has a value that is refused.
    """
    if isinstance(description, str):
        if description not in SHAPES:
            hint = " Name its shape and classes, too: data: {name, shape, classes, reader, options}."
            known = description in DATASETS
            raise UserError(
                (f"Data set {description!r} is refused without a shape." if known else "")
                + ("" if known else did_you_mean("data set", description, SHAPES))
                + hint
            )
        return DataSource(description, *SHAPES[description], description)
    keys = {"name", "shape", "classes", "reader", "options"}
    unknown = set(description) - keys
    if unknown:
        raise UserError(did_you_mean("key of data", str(min(unknown, key=str)), keys))
    name = description.get("name")
    if not isinstance(name, str) or not name.replace("-", "").replace(".", "").isalnum() or not name.isascii():
        raise UserError(f"The data set's name {name!r} is refused; allowed are letters, digits, '-' and '.'.")
    reader = description.get("reader", name)
    if not isinstance(reader, str):
        raise UserError(f"The reader {reader!r} is refused; name one of {', '.join(DATASETS)}, or module:function.")
    usual: tuple[Any, Any] = SHAPES.get(reader, (None, None))
    options = description.get("options", {})
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise UserError(f"The options {options!r} of data set {name!r} are refused; they must be a mapping.")
    source = DataSource(
        name=name,
        shape=_shape(description.get("shape", usual[0]), name),
        classes=_classes(description.get("classes", usual[1]), name),
        reader=reader,
        options=dict(options),
    )
    _check_options(source)
    return source


def _shape(shape: Any, name: str) -> tuple[int, int, int]:
    fits = isinstance(shape, list | tuple) and len(shape) == 3
    if not fits or not all(isinstance(size, int) and 0 < size <= 4096 for size in shape):
        raise UserError(
            f"The shape {shape!r} of data set {name!r} is refused; write channels, height and width, e.g. [3, 64, 64]."
        )
    return cast(tuple[int, int, int], tuple(shape))


def _classes(classes: Any, name: str) -> int:
    if isinstance(classes, bool) or not isinstance(classes, int) or not 2 <= classes <= 100_000:
        raise UserError(f"classes: {classes!r} of data set {name!r} is refused; it must be a whole number from 2 on.")
    return classes


def _reader(source: DataSource) -> Callable[..., Pixels]:
    if ":" not in source.reader:
        return DATASETS.get(source.reader)
    return cast(Callable[..., Pixels], imported(source.reader, "data set's reader"))


def _check_options(source: DataSource) -> None:
    """Refuses options that the reader doesn't have, and misses those that it needs."""
    parameters = inspect.signature(_reader(source)).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return
    allowed = {one.name: one.default is one.empty for one in parameters if one.name not in _LENT}
    for name in source.options:
        if name not in allowed:
            raise UserError(did_you_mean(f"option of the reader {source.reader!r}", name, allowed))
    missing = [name for name, needed in allowed.items() if needed and name not in source.options]
    if missing:
        raise UserError(
            f"The data set {source.name!r} lacks the option {missing[0]!r}, which the reader {source.reader!r} needs."
        )


def load_split(
    source: DataSource,
    split: Split,
    root: Path | None = None,
    *,
    download: bool = True,
    allow_sample: bool = True,
) -> Dataset:
    """Loads a split of a data set.

    Args:
        source: Which data set.
        split: ``train``; ``val``, a tenth of each class of the training set, at most 500, always the same ones; or
            ``test``.
        root: Folder of the data, or a file of packed ones (`models.datasets.packed`); None: it is looked for.
        download: Whether what isn't there may be downloaded, where torchvision can.
        allow_sample: Whether CIFAR-10's built-in sample may stand in for its test split.

    Example:
        >>> data = load_split(source_of("digits"), "test")
        >>> data.images.shape, data.classes
        ((360, 1, 8, 8), 10)

    Raises:
        UserError: There is no such data, or it has another shape or other classes than the source says.
    """
    if split not in SPLITS:
        raise UserError(f"Unknown split {split!r}. Available: {', '.join(SPLITS)}.")
    if root is not None and is_packed(root):
        return read_packed(root, split, name=source.name, shape=source.shape, classes=source.classes)
    if source.name == source.reader == CIFAR10:
        return cifar10.load(split, root, download=download, allow_sample=allow_sample)
    part = "test" if split == "test" else "train"
    pixels = _reader(source)(part, root, download=download, **source.options)
    _check(source, part, pixels)
    indices = np.arange(len(pixels.labels))
    if split != "test":
        held_out = held_out_indices(pixels.labels, source.classes)
        indices = held_out if split == "val" else np.setdiff1d(indices, held_out)
    if not len(indices):
        raise UserError(f"Data set {source.name!r} has too few images for a {split} split; ten of a class are needed.")
    return Dataset(
        images=pixels.floats(indices),
        labels=pixels.labels[indices].astype(np.int64),
        indices=indices.astype(np.int64),
        split=split,
        fingerprint=hashlib.sha256(pixels.images.tobytes() + pixels.labels.tobytes()).hexdigest(),
        official=pixels.official,
        sample=False,
        source=pixels.origin,
        classes=source.classes,
        name=source.name,
    )


def _check(source: DataSource, part: str, pixels: Pixels) -> None:
    """Holds what was read to what the source says."""
    if not isinstance(pixels, Pixels):
        raise UserError(
            f"The reader {source.reader!r} returned {type(pixels).__name__}; it must return "
            "prunecert.models.datasets.reading.Pixels(images, labels, origin)."
        )
    if pixels.images.shape[1:] != source.shape:
        raise UserError(
            f"Data set {source.name!r} has {part} images of shape {list(pixels.images.shape[1:])}; its entry says "
            f"{list(source.shape)} (channels, height, width)."
        )
    if not len(pixels.labels):
        raise UserError(f"Data set {source.name!r} has no {part} images.")
    lowest, highest = int(pixels.labels.min()), int(pixels.labels.max())
    if not 0 <= lowest <= highest < source.classes:
        raise UserError(
            f"Data set {source.name!r} has {part} labels from {lowest} to {highest}; its entry "
            f"says {source.classes} classes, from 0 to {source.classes - 1}."
        )


def held_out_indices(labels: npt.NDArray[np.integer[Any]], classes: int) -> npt.NDArray[np.int64]:
    """Returns the positions of the held-out images: a tenth of each class, at most 500, sorted, always the same."""
    generator = np.random.default_rng(_HELD_OUT_SEED)
    chosen = []
    for label in range(classes):
        places = np.flatnonzero(labels == label)
        count = min(int(_HELD_OUT_SHARE * len(places)), _HELD_OUT_MOST)
        chosen.append(generator.choice(places, count, replace=False))
    return np.sort(np.concatenate(chosen)).astype(np.int64)
