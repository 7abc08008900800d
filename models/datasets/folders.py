"""Images in folders: a folder a class, as `torchvision.datasets.ImageFolder` has it, and TinyImageNet's own layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.models.datasets.reading import Part, Pixels, first_readable
from prunecert.vision import import_torchvision

_TINY = "tiny-imagenet-200"


def image_folder(
    part: Part,
    root: Path | None = None,
    *,
    download: bool = False,
    path: str = ".",
    size: Sequence[int],
    train: str = "train",
    test: str = "test",
    grey: bool = False,
) -> Pixels:
    """Reads a folder with a folder for each class.

    Args:
        part: ``train`` or ``test``.
        root: Folder to which `path` is relative; None: the current one.
        download: Not used.
        path: The data set's folder.
        size: Height and width; other images are resized (bilinear, with antialiasing).
        train: Name of the folder of training images in it.
        test: Likewise of test images.
        grey: Whether images are read with one channel.

    Raises:
        UserError: There is no such folder, or it holds no images in folders.
    """
    import_torchvision()
    from torchvision.datasets import ImageFolder

    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"size: {size!r} is refused; write height and width, e.g. [64, 64].")
    names = {"train": train, "test": test}
    folder = (root or Path()) / path / names[part]
    try:
        listed = ImageFolder(str(folder))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{str(folder)!r} is no folder of images by class ({str(error).splitlines()[0]}); needed is a folder for "
            "each class with images in it."
        ) from error
    # The classes of both parts are numbered alike only if they are the same.
    other = folder.parent / names["test" if part == "train" else "train"]
    if other.is_dir():
        classes = sorted(entry.name for entry in other.iterdir() if entry.is_dir())
        if classes != listed.classes:
            different = sorted(set(classes) ^ set(listed.classes))
            raise UserError(
                f"{str(folder.parent)!r} has other classes for training than for testing: {', '.join(different[:5])}; "
                "both folders need a folder for each class."
            )
    images = [read_image(Path(file), (size[0], size[1]), grey=grey) for file, _ in listed.samples]
    labels = np.asarray([label for _, label in listed.samples], dtype=np.int64)
    return Pixels(np.stack(images), labels, f"the images in {Path(path).name or folder.parent.name}")


def tiny_imagenet(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Reads TinyImageNet from its folder ``tiny-imagenet-200``; its validation images are for testing.

    The labels of its own test images were never published.

    Args:
        part: ``train`` (100,000 images) or ``test`` (10,000).
        root: The folder, or the one above; None: ``TINY_IMAGENET_ROOT``, or ``data``.
        download: Not used.

    Raises:
        UserError: It isn't there, or is not whole.
    """

    def read(place: Path, _: bool) -> Pixels | None:
        folder = place if place.name == _TINY else place / _TINY
        return _tiny(part, folder) if (folder / "wnids.txt").is_file() else None

    return first_readable("tiny-imagenet", root, False, read, f"the unpacked folder {_TINY!r}")


def _tiny(part: Part, folder: Path) -> Pixels:
    names = (folder / "wnids.txt").read_text().split()
    number = {name: label for label, name in enumerate(sorted(names))}
    try:
        if part == "train":
            files = [
                (file, number[name])
                for name in sorted(names)
                for file in sorted((folder / "train" / name / "images").glob("*.JPEG"))
            ]
        else:
            rows = [line.split("\t") for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()]
            files = [(folder / "val" / "images" / row[0], number[row[1]]) for row in rows if len(row) > 1]
        images = [read_image(file, (64, 64)) for file, _ in files]
    except (OSError, KeyError) as error:
        raise UserError(f"TinyImageNet in {str(folder)!r} is not whole ({error}); unpack the archive again.") from error
    if not images:
        raise UserError(f"TinyImageNet in {str(folder)!r} is not whole (it has no {part} images); unpack it again.")
    return Pixels(np.stack(images), np.asarray([label for _, label in files], dtype=np.int64), "TinyImageNet")


def read_image(file: Path, size: tuple[int, int], *, grey: bool = False) -> npt.NDArray[np.uint8]:
    """Returns an image file as [C, height, width], resized if it has another size.

    Raises:
        UserError: It is no image.
        FileNotFoundError: It isn't there.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            image: Any = opened.convert("L" if grey else "RGB")
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{str(file)!r} is no image that can be read ({error}); remove it.") from error
    if image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if grey else array.transpose(2, 0, 1)
