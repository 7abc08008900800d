"""The 1,797 handwritten digits that scikit-learn ships: real images, and nothing to download.

8x8 pixels of 17 levels, a part of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunecert.errors import UserError
from prunecert.models.datasets.reading import Part, Pixels

_LEVELS = 16
_TEST_SHARE = 5


def read(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Returns a part: every fifth image is for testing, 360 of them, the others are for training.

    Args:
        part: ``train`` or ``test``.
        root: Not used.
        download: Not used.

    Raises:
        UserError: scikit-learn isn't installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UserError("The data set 'digits' is a part of scikit-learn; call: pip install scikit-learn") from None
    bunch = load_digits()
    testing = np.arange(len(bunch.target)) % _TEST_SHARE == 0
    chosen = testing if part == "test" else ~testing
    images = (bunch.images[chosen] / _LEVELS).astype(np.float32)[:, None]
    return Pixels(images, bunch.target[chosen], "the digits of scikit-learn")
