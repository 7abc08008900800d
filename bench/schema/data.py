"""The data set of a suite: a name, or an entry that says where its images lie."""

from __future__ import annotations

from collections.abc import Mapping

from prunecert.bench.schema.yamlfile import Section
from prunecert.errors import UserError
from prunecert.models.datasets.source import CIFAR10, DataSource, source_of

#: Images of CIFAR-10's splits, held-out ones included.
CIFAR10_SIZES: Mapping[str, int] = {"train": 50_000, "val": 50_000, "test": 10_000}
#: What nobody means: of other data sets the number is known when they are read.
_MOST_IMAGES = 10_000_000


def take_data(root: Section) -> DataSource:
    """Reads the key ``data`` of a suite: a name, or name, shape, classes, reader and options; without it, CIFAR-10.

    Raises:
        UserError: The name is unknown, or something of the entry is missing or refused.
    """
    value = root.data.get("data", CIFAR10)
    if isinstance(value, Mapping):
        root.section("data")
    else:
        value = root.take("data", str, CIFAR10)
    try:
        return source_of(value)
    except UserError as error:
        raise root.refusal("data", str(error)) from error


def split_sizes(source: DataSource) -> Mapping[str, int]:
    """Returns how many images may be asked for of each split."""
    return CIFAR10_SIZES if source.name == CIFAR10 else dict.fromkeys(CIFAR10_SIZES, _MOST_IMAGES)
