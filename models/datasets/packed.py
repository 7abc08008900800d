"""Training data as one small file: what a training on another machine needs of a data set, and no more.

The file is a zip archive of a description, labels, positions and images. Images of 256 levels are kept as uint8, in
lossless WebP where they are grey or coloured: CIFAR-10's 50,000 training images take 84 MB, little more than half of
their pixels. Others are kept as float32. What is read is what was written, bit by bit, and says of itself what the
whole data set said: its fingerprint above all, so that what is trained on it is known as trained on these data.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.files import open_regular, replacing
from prunecert.models.data import Dataset, Split
from prunecert.printable import shortened

SUFFIX = ".packed"
SCHEMA_VERSION = 1
_DESCRIPTION = "description.json"
_DESCRIPTION_BYTES = 1 << 16
#: Images beside and above each other in a mosaic, which is compressed far better than single images are.
_COLUMNS, _ROWS = 25, 10
#: Pixels of a side that WebP takes, and of a mosaic that readers take for no attack.
_LONGEST, _MOST_PIXELS = 16_383, 40_000_000
_BROKEN = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    msgspec.MsgspecError,
)


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file of packed data says of itself.

    Args:
        name: The data set's name.
        shape: Channels, height and width of an image.
        classes: How many classes there are.
        fingerprint: See `models.data.Dataset`; of the whole data set, whatever part of it is here.
        official: Likewise.
        source: Likewise.
        images: How many images there are, by split.
        encoding: ``webp`` (mosaics), ``uint8`` or ``float32``.
        schema_version: Of the file.
    """

    name: str
    shape: tuple[int, int, int]
    classes: int
    fingerprint: str
    official: bool
    source: str
    images: dict[str, int]
    encoding: str
    schema_version: int = SCHEMA_VERSION


def is_packed(root: Path | None) -> bool:
    """Whether somebody who names `root` as the place of the data means a file of packed data."""
    return root is not None and root.suffix == SUFFIX


def write_packed(splits: Sequence[Dataset], file: Path) -> Description:
    """Writes splits of a data set into one file, and reads it again to see that they are the same.

    Args:
        splits: Such as ``train`` and ``val``, of one data set.
        file: Where; its name ends in `SUFFIX`.

    Raises:
        ValueError: The splits are of different data, or what was read again isn't what was written.
    """
    first = splits[0]
    if len({(data.name, data.fingerprint, data.images.shape[1:]) for data in splits}) > 1:
        raise ValueError("the splits are of different data sets")
    channels, height, width = first.images.shape[1:]
    exact = all(_has_levels(part) for data in splits for part in _portions(data.images))
    small = max(height, width) <= _LONGEST and height * width <= _MOST_PIXELS
    mosaics = exact and channels in (1, 3) and small and _has_webp()
    description = Description(
        name=first.name,
        shape=(channels, height, width),
        classes=first.classes,
        fingerprint=first.fingerprint,
        official=first.official,
        source=first.source,
        images={data.split: len(data) for data in splits},
        encoding="webp" if mosaics else "uint8" if exact else "float32",
    )
    with replacing(file) as scratch:
        with zipfile.ZipFile(scratch, "w") as archive:
            _add(archive, _DESCRIPTION, msgspec.json.encode(description))
            for data in splits:
                _add(archive, f"{data.split}.labels.npy", _array_bytes(data.labels))
                _add(archive, f"{data.split}.indices.npy", _array_bytes(data.indices))
                for number, part in enumerate(_encoded(data.images, description)):
                    _add(archive, f"{data.split}.{number:05}.{description.encoding}", part)
        for data in splits:
            again = _read(scratch, data.split)
            if any(getattr(again, key).tobytes() != getattr(data, key).tobytes() for key in ("images", "labels")):
                raise ValueError(f"the {data.split} split was not written as it is")
    return description


def read_packed(file: Path, split: Split, *, name: str, shape: tuple[int, int, int], classes: int) -> Dataset:
    """Reads a split from a file of packed data.

    Args:
        file: What `write_packed` wrote.
        split: Which one.
        name: The data set that it must be of.
        shape: Of its images.
        classes: How many it has.

    Raises:
        UserError: There is no such file, it is damaged or something else, of another data set, or lacks the split.
    """
    description = read_description(file)
    if (description.name, description.shape, description.classes) != (name, shape, classes):
        raise UserError(
            f"{shortened(file)} is refused: it holds the data set {shortened(repr(description.name), 60)} with images "
            f"of shape {list(description.shape)} and {description.classes} classes; needed is {name!r} with "
            f"{list(shape)} and {classes}."
        )
    return _read(file, split)


def read_description(file: Path) -> Description:
    """Returns what a file of packed data says of itself.

    Raises:
        UserError: There is no such file, or it is something else.
    """
    with _opened(file) as archive:
        data = json.loads(_member(archive, _DESCRIPTION, _DESCRIPTION_BYTES))
        if isinstance(data, Mapping) and isinstance(data.get("schema_version"), int):
            version = data["schema_version"]
            if version > SCHEMA_VERSION:
                raise UserError(
                    f"{shortened(file)} has schema version {version}, newer than this program's {SCHEMA_VERSION}; "
                    "update prunecert."
                )
        return msgspec.convert(data, Description)


def _read(file: Path, split: Split) -> Dataset:
    description = read_description(file)
    count = description.images.get(split)
    if count is None:
        raise UserError(
            f"{shortened(file)} has no {split} split, only {' and '.join(description.images)}; name the data "
            "themselves with --data-root."
        )
    with _opened(file) as archive:
        parts = sorted(name for name in archive.namelist() if name.startswith(f"{split}.0"))
        most = 2 * 4 * int(np.prod(description.shape)) * max(count, _COLUMNS * _ROWS) + _DESCRIPTION_BYTES
        images = _decoded([_member(archive, part, most) for part in parts], description, count)
        labels, indices = (
            np.load(io.BytesIO(_member(archive, f"{split}.{key}.npy", most)), allow_pickle=False).astype(np.int64)
            for key in ("labels", "indices")
        )
        if not len(images) == len(labels) == len(indices) == count:
            raise ValueError(f"{count} images were announced")
        if count and not 0 <= int(labels.min()) <= int(labels.max()) < description.classes:
            raise ValueError("a label is no class")
    return Dataset(
        images=images,
        labels=labels,
        indices=indices,
        split=split,
        fingerprint=description.fingerprint,
        official=description.official,
        sample=False,
        source=description.source,
        classes=description.classes,
        name=description.name,
    )


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a file of packed data; whatever is wrong with it within is said in one sentence."""
    with open_regular(file) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                yield archive
        except UserError:
            raise
        except _BROKEN as error:
            raise UserError(
                f"{shortened(file)} is no whole file of packed data ({shortened(error) or type(error).__name__}); it "
                "must be one that prunecert pack wrote: bring it here again."
            ) from error


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    if archive.getinfo(name).file_size > most:
        raise ValueError(f"{name} is too large")
    return archive.read(name)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Adds a member that is the same whenever it is written; WebP can't be compressed further."""
    kind = zipfile.ZIP_STORED if name.endswith(".webp") else zipfile.ZIP_DEFLATED
    archive.writestr(zipfile.ZipInfo(name), data, kind)


def _array_bytes(array: npt.NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _portions(images: npt.NDArray[Any], size: int = 5_000) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, len(images), size):
        yield images[start : start + size]


def _levels(images: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = np.rint(images * np.float32(255)).astype(np.uint8)
    return levels


def _floats(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns levels as the readers of data sets make them."""
    return levels.astype(np.float32) / np.float32(255)


def _has_levels(images: npt.NDArray[np.float32]) -> bool:
    """Whether images, [N, C, H, W], are 256 levels over 255, bit by bit."""
    return np.array_equal(_floats(_levels(images)).view(np.int32), np.ascontiguousarray(images).view(np.int32))


def _grid(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Returns how many images stand above and beside each other in a mosaic."""
    _, height, width = shape
    columns = min(_COLUMNS, _LONGEST // width, _MOST_PIXELS // (height * width))
    return min(_ROWS, _LONGEST // height, _MOST_PIXELS // (height * width * columns)), columns


def _has_webp() -> bool:
    from PIL import features

    return bool(features.check("webp"))


def _encoded(images: npt.NDArray[np.float32], description: Description) -> Iterator[bytes]:
    if description.encoding != "webp":
        for part in _portions(images):
            yield _array_bytes(_levels(part) if description.encoding == "uint8" else part)
        return
    from PIL import Image

    rows, columns = _grid(description.shape)
    channels, height, width = description.shape

    def encode(part: npt.NDArray[np.float32]) -> bytes:
        tiles = np.zeros((rows * columns, *description.shape), dtype=np.uint8)
        tiles[: len(part)] = _levels(part)
        grid = tiles.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
        mosaic = np.ascontiguousarray(grid.reshape(rows * height, columns * width, channels))
        stream = io.BytesIO()
        picture = Image.fromarray(mosaic if channels == 3 else mosaic.repeat(3, axis=2))
        picture.save(stream, "WEBP", lossless=True, quality=60, method=4)
        return stream.getvalue()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(encode, _portions(images, rows * columns))


def _decoded(parts: Sequence[bytes], description: Description, count: int) -> npt.NDArray[np.float32]:
    """Returns `count` images of one split, [N, C, H, W] in [0, 1]."""
    channels, height, width = description.shape
    images = np.zeros((count, *description.shape), dtype=np.float32)
    if description.encoding in ("uint8", "float32"):
        arrays = [np.load(io.BytesIO(part), allow_pickle=False) for part in parts]
        if any(array.dtype != description.encoding for array in arrays):
            raise ValueError(f"images are no {description.encoding}")
        whole = np.concatenate([*arrays, np.zeros((0, *description.shape), dtype=description.encoding)])
        images[:] = _floats(whole) if description.encoding == "uint8" else whole
        return images
    if description.encoding != "webp":
        raise ValueError(f"unknown encoding {shortened(repr(description.encoding), 60)}")
    from PIL import Image

    rows, columns = _grid(description.shape)

    def decode(number: int) -> None:
        with Image.open(io.BytesIO(parts[number]), formats=["WEBP"]) as picture:
            if picture.size != (columns * width, rows * height):
                raise ValueError(f"a mosaic of {picture.size} pixels")
            mosaic = np.asarray(picture.convert("RGB"))[:, :, :channels]
        grid = mosaic.reshape(rows, height, columns, width, channels).transpose(0, 2, 4, 1, 3)
        place = images[number * rows * columns :][: rows * columns]
        place[:] = _floats(grid.reshape(rows * columns, *description.shape)[: len(place)])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, range(len(parts))))
    if (len(parts) - 1) * rows * columns >= count or len(parts) * rows * columns < count:
        raise ValueError(f"{len(parts)} mosaics for {count} images")
    return images
