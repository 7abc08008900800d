"""Data sets that torchvision reads, and downloads where that is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from prunecert.errors import UserError
from prunecert.models.datasets.folders import read_image
from prunecert.models.datasets.reading import Part, Pixels, channels_first, first_readable
from prunecert.vision import import_torchvision

_SIGNS = (32, 32)


def _sets() -> Any:
    try:
        import_torchvision()
    except ImportError:
        raise UserError("This data set is read by torchvision; call: pip install 'prunecert[data]'") from None
    import torchvision.datasets

    return torchvision.datasets


def _read(name: str, part: Part, root: Path | None, download: bool, kind: Any, title: str, **options: Any) -> Pixels:
    """Reads one of torchvision's, whose arrays are ``data`` and ``targets`` or ``labels``."""

    class Unchecked(kind):  # type: ignore[misc]
        """The same files, whatever their MD5 sums."""

        def _check_integrity(self) -> bool:
            return True

        def _load_meta(self) -> None:
            """The class names' file is checked by its sum, too, and not needed."""

    # torchvision looks for the files in a folder of the class's name.
    Unchecked.__name__ = kind.__name__

    def read(place: Path, fetch: bool) -> Pixels | None:
        official = True
        try:
            files = kind(str(place), download=fetch, **options)
        except RuntimeError:
            # It isn't there, or has other sums than were published; the latter may still be read.
            official = False
            try:
                files = Unchecked(str(place), download=False, **options)
            except (OSError, RuntimeError, ValueError, EOFError):
                return None
        labels = files.targets if hasattr(files, "targets") else files.labels
        return Pixels(
            channels_first(np.asarray(files.data), title), np.asarray(labels, dtype=np.int64), title, official
        )

    return first_readable(name, root, download, read, f"{title}'s files as torchvision has them")


def cifar10(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Reads CIFAR-10 for those who give it another name; `models.data` has its own splits and sample."""
    kind = _sets().CIFAR10
    return _read("cifar10", part, root, download, kind, "CIFAR-10", train=part == "train")


def cifar100(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Reads CIFAR-100, 100 classes."""
    kind = _sets().CIFAR100
    return _read("cifar100", part, root, download, kind, "CIFAR-100", train=part == "train")


def mnist(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Reads MNIST, [1, 28, 28]."""
    return _read("mnist", part, root, download, _sets().MNIST, "MNIST", train=part == "train")


def fashion_mnist(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Reads FashionMNIST, [1, 28, 28]."""
    kind = _sets().FashionMNIST
    return _read("fashion-mnist", part, root, download, kind, "FashionMNIST", train=part == "train")


def svhn(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Reads SVHN's cropped digits, [3, 32, 32]."""
    return _read("svhn", part, root, download, _sets().SVHN, "SVHN", split=part)


def gtsrb(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Reads the German traffic signs, 43 classes; images of 15 to 250 pixels are resized to 32x32 (bilinear)."""
    kind = _sets().GTSRB

    def read(place: Path, fetch: bool) -> Pixels | None:
        try:
            signs = kind(str(place), split=part, download=fetch)
        except RuntimeError:
            return None
        files: list[tuple[str, int]] = signs._samples
        images = [read_image(Path(file), _SIGNS) for file, _ in files]
        if not images:
            return None
        return Pixels(np.stack(images), np.asarray([label for _, label in files], dtype=np.int64), "GTSRB")

    return first_readable("gtsrb", root, download, read, "GTSRB's folder 'gtsrb' as torchvision has it")
