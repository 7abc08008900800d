"""Images in NumPy's own files."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.errors import UserError
from prunecert.models.datasets.reading import Part, Pixels, channels_first, roots


def npz(
    part: Part,
    root: Path | None = None,
    *,
    download: bool = False,
    path: str,
    images: str = "x_{part}",
    labels: str = "y_{part}",
    range: Sequence[float] | None = None,  # noqa: A002
) -> Pixels:
    """Reads a part from an ``.npz`` file.

    Args:
        part: ``train`` or ``test``.
        root: Folder of the file; None: the current one, or ``data``.
        download: Not used.
        path: The file; ``{part}`` in it stands for train or test, where there are two.
        images: Name of the images' array: [N, C, H, W], [N, H, W, C] or [N, H, W], uint8 or floats.
        labels: Name of the labels' array, [N], from 0.
        range: Lowest and highest value of floats, which become 0 and 1; None: they are within [0, 1] as they are.

    Raises:
        UserError: There is no such file, it is damaged, or lacks an array.
    """
    name = path.replace("{part}", part)
    folders = [Path()] if Path(name).is_absolute() else [*roots("npz", root), Path()]
    file = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if file is None:
        raise UserError(
            f"There is no file {name!r} in {' or '.join(repr(str(folder)) for folder in folders)}; name its folder "
            "with --data-root, or write the path as it is from here."
        )
    try:
        with np.load(file, allow_pickle=False) as arrays:
            keys = {images.replace("{part}", part), labels.replace("{part}", part)}
            for key in sorted(keys - set(arrays.files)):
                raise UserError(
                    f"{file} holds no array {key!r}, but {', '.join(arrays.files)}; rename them, or say in a suite's "
                    "data: which they are, options: {path: …, images: NAME, labels: NAME}."
                )
            pixels: Any = arrays[images.replace("{part}", part)]
            classes: Any = arrays[labels.replace("{part}", part)]
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{file} can't be read ({error}); it must be a .npz file of plain arrays.") from error
    if range is not None:
        if len(range) != 2 or not range[0] < range[1]:
            raise UserError(f"range: {range!r} is refused; write the lowest and the highest value, e.g. [0, 255].")
        pixels = ((pixels.astype(np.float64) - range[0]) / (range[1] - range[0])).astype(np.float32)
    return Pixels(channels_first(pixels, file.name), np.asarray(classes).reshape(-1), f"the arrays of {file.name}")
