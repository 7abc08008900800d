"""What a reader of a data set returns, and what readers share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError

Part = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class Pixels:
    """The images of one part of a data set.

    Args:
        images: [N, C, H, W]: uint8, of which 255 stands for 1, or float32 within [0, 1].
        labels: [N], from 0; int64 once it is made.
        origin: Where they come from, in words without a path.
        official: False if files have other checksums than were published; True also where none were.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[np.integer[Any]]
    origin: str
    official: bool = True

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(
                f"{self.origin}: images of shape {images.shape} and labels of shape {labels.shape} are refused; "
                "needed are [N, C, H, W] and [N]."
            )
        if labels.dtype.kind not in "iu":
            raise UserError(f"{self.origin}: labels of type {labels.dtype} are refused; needed are whole numbers.")
        object.__setattr__(self, "labels", np.ascontiguousarray(labels, dtype=np.int64))
        if images.dtype == np.uint8:
            object.__setattr__(self, "images", np.ascontiguousarray(images))
            return
        floats = np.ascontiguousarray(images, dtype=np.float32)
        if images.dtype.kind != "f" or not (np.isfinite(floats).all() and floats.min(initial=0) >= 0):
            raise UserError(f"{self.origin}: images of type {images.dtype} are refused; needed are uint8 or floats.")
        if floats.max(initial=0) > 1:
            raise UserError(
                f"{self.origin}: images up to {floats.max():g} are refused; floats must be within [0, 1]: name their "
                "range with the option range, e.g. [0, 255]."
            )
        object.__setattr__(self, "images", floats)

    def floats(self, indices: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Returns chosen images as float32 within [0, 1]."""
        chosen = self.images[indices].astype(np.float32)
        return np.ascontiguousarray(chosen / np.float32(255) if self.images.dtype == np.uint8 else chosen)


def channels_first(images: npt.NDArray[Any], origin: str) -> npt.NDArray[Any]:
    """Returns images as [N, C, H, W], from [N, H, W], or from [N, H, W, C] with 1, 3 or 4 channels.

    Raises:
        UserError: They are something else.
    """
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3, 4):
        return images.transpose(0, 3, 1, 2)
    if images.ndim != 4:
        raise UserError(f"{origin}: images of shape {images.shape} are refused; needed are [N, C, H, W] or [N, H, W].")
    return images


def roots(name: str, root: Path | None) -> list[Path]:
    """Returns the folders in which a data set is looked for: `root`, that of an environment variable, ``data``.

    Args:
        name: The data set's; the variable of ``tiny-imagenet`` is ``TINY_IMAGENET_ROOT``.
        root: What the user named, or None.
    """
    variable = os.environ.get(f"{name.upper().replace('-', '_')}_ROOT")
    named = [path for path in (root, Path(variable) if variable else None) if path is not None]
    return named or [Path("data")]


def first_readable(
    name: str, root: Path | None, download: bool, read: Callable[[Path, bool], Pixels | None], wanting: str
) -> Pixels:
    """Returns what the first folder holds that has the data set; else downloads it, where that is allowed.

    Args:
        name: The data set's.
        root: What the user named, or None.
        download: Whether it may be downloaded.
        read: Reads a folder, downloading if told to; None: it isn't there.
        wanting: What must lie in the folder, for the message.

    Raises:
        UserError: It can't be had.
    """
    places = roots(name, root)
    for place in places:
        if (pixels := read(place, False)) is not None:
            return pixels
    problem = ""
    # Nothing is written into a folder that the user named.
    if download and places == [Path("data")]:
        try:
            if (pixels := read(places[0], True)) is not None:
                return pixels
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            problem = f", and the download failed ({reason})"
    shown = " or ".join(repr(str(place)) for place in places)
    variable = f"{name.upper().replace('-', '_')}_ROOT"
    raise UserError(
        f"Data set {name!r} is needed and isn't in {shown}{problem}; put {wanting} there, or name its folder with "
        f"--data-root or {variable}."
    )
