from __future__ import annotations

import pytest

from prunecert.bench.leaderboard.imagesets import EXACT, images_sha256, is_exact, known_labels


@pytest.mark.cifar10
def test_the_known_image_sets_are_those_of_cifar10() -> None:
    import os

    from prunecert.models.data import load

    if "CIFAR10_ROOT" not in os.environ:
        pytest.skip("needs CIFAR10_ROOT")
    data = load("test", download=False, allow_sample=False)
    for count in EXACT:
        assert is_exact(count, images_sha256(data, count))
        assert data.labels[:count].tolist() == known_labels(count)
    assert not is_exact(7, images_sha256(data, 7))
