"""Data sets: each is one function that reads a part of it, or an entry in a suite that says which files.

>>> "digits" in DATASETS
True
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prunecert.registry import Registry

if TYPE_CHECKING:
    from prunecert.models.datasets.reading import Pixels

#: Readers: ``read(part, root, *, download) -> Pixels`` for ``part`` train or test; keywords beyond these are options
#: that a suite may give. ``cifar10`` is read by `models.data` itself.
DATASETS: Registry[Callable[..., Pixels]] = Registry(
    "data set",
    {
        "cifar10": "prunecert.models.datasets.torchvision_sets:cifar10",
        "cifar100": "prunecert.models.datasets.torchvision_sets:cifar100",
        "digits": "prunecert.models.datasets.digits:read",
        "fashion-mnist": "prunecert.models.datasets.torchvision_sets:fashion_mnist",
        "folder": "prunecert.models.datasets.folders:image_folder",
        "gtsrb": "prunecert.models.datasets.torchvision_sets:gtsrb",
        "mnist": "prunecert.models.datasets.torchvision_sets:mnist",
        "npz": "prunecert.models.datasets.arrays:npz",
        "svhn": "prunecert.models.datasets.torchvision_sets:svhn",
        "tiny-imagenet": "prunecert.models.datasets.folders:tiny_imagenet",
    },
)

#: Shape and classes of those that have but one.
SHAPES: dict[str, tuple[tuple[int, int, int], int]] = {
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "digits": ((1, 8, 8), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "gtsrb": ((3, 32, 32), 43),
    "mnist": ((1, 28, 28), 10),
    "svhn": ((3, 32, 32), 10),
    "tiny-imagenet": ((3, 64, 64), 200),
}
