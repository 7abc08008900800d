"""Which images a result is on: a hash of pixels and labels, and the known hashes of CIFAR-10's first ones."""

from __future__ import annotations

import hashlib

import numpy as np

from prunecert.models.data import Dataset

#: An entry has at least so many images: below, an interval of 95 % is wider than a quarter of all.
LEAST_IMAGES = 50
#: Entries on so many images are ranked; those on fewer are a class of their own.
RANKED_IMAGES = 1000
#: The data set of the board. Entries on others are boards of their own, never ranked with it.
CIFAR10 = "CIFAR-10"
_UNOFFICIAL = " (unofficial copy)"
#: First n images of CIFAR-10's test split, in their order. Copies that circulate differ in later images.
EXACT = {
    5: "4099b08e95e8dec0d52fe0eb3fcb5c6ebeb9878570a3441956e6e44fdbc068e4",
    10: "e5cdbb9da4b9763ca02807963eabf61622860433e64d965a1fb6d64b5e79eacb",
    20: "9ffb57dc91bbe0a7418ef9903e299c06608b26af6d1d9e63df6e4578c9df6076",
    50: "20db3c1449e8dcb36351aab997bb1630826cdd53ff821af8d791eeca0af70fa7",
    100: "4ff5b7ae862e8c87a834cfe8e571cd8e552710f37f6b56731471d367916ad88d",
    200: "04915cc0f7eb5968173f7b330263e55bacbaa1ace56caee6d1c4072f104aaf34",
    500: "3cf4f1dae40946da51d91d2ba53f56d70b0c346767c87550dcfe42060fc9dc6b",
    1000: "09f27c48f8ef1306c9e28f5fba4eef29d6fbd627be8a3fd7debb22e135c49a66",
}
#: Their labels, an image a digit.
_LABELS = (
    "3880661631095798578670495240966545924195465609397698038877467363621237268802933881172527890386466007"
    "4563113687406213042783128083524189129729656387625289600529542166848450999899375005223863405801728878"
    "5187130579745980798276943964765158804055118903192253994030098157082470236385034390610910791269346006"
    "6632618216868040775535234175461936693807262585468991022732809581941381479427070669092872251262962303"
    "9878840182793619073745002934062537372531149957502229739435465614344378378057605486855999501081180220"
    "4654947994566153895857070500469095666290176759162555859464320762239792671366897540840934896926147353"
    "8502164339698858662177127994412568768305530791344539569211419476389013636320310596489696303227838275"
    "7248742988688743384948818213654279941413270797662592912268213660127054616402260591767039683034771472"
    "7147448477537208958362087376531322541292707213202479890770784633013701314238423784309001044676113735"
    "2665871688530401388069995586004232722598917403013839614703789116666919942170681929047831201584638138"
)


def data_name(source: str) -> str:
    """Returns the data set that an entry's images are from.

    Example:
        >>> data_name("CIFAR-10 (unofficial copy)"), data_name("the digits of scikit-learn")
        ('CIFAR-10', 'the digits of scikit-learn')

    Args:
        source: ``data.source`` of an entry.
    """
    return source.removesuffix(_UNOFFICIAL)


def images_sha256(data: Dataset, count: int) -> str:
    """Returns the SHA-256 of the first images' pixels (uint8, [count, 3, 32, 32]) and labels (int64, little endian)."""
    pixels = np.rint(data.images[:count] * 255).astype(np.uint8)
    return hashlib.sha256(pixels.tobytes() + data.labels[:count].astype("<i8").tobytes()).hexdigest()


def is_exact(count: int, sha256: str) -> bool:
    """Whether these are known to be CIFAR-10's first test images to the pixel; false where it is not known."""
    return EXACT.get(count) == sha256


def known_labels(count: int) -> list[int]:
    """Returns the labels of CIFAR-10's first test images, `count` of at most 1,000."""
    return [int(digit) for digit in _LABELS[:count]]
