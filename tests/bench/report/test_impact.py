from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.image
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.bench.report.impact import Pictures, class_names, png, section
from prunecert.bench.results.impact.images import ImageOutcomes
from tests.bench.results.impact.networks import network, proved


def networks() -> list[ImageOutcomes]:
    return [network(proved(*range(20)), pruner="dense"), network(proved(*range(2, 21)))]


def split(fingerprint: str = "f" * 64) -> Pictures:
    images = np.random.default_rng(0).random((40, 3, 8, 8), dtype=np.float32)
    return SimpleNamespace(images=images, indices=np.arange(40)[::-1], fingerprint=fingerprint)


def test_lost_and_gained_images_are_shown() -> None:
    data = split()
    html = section(networks(), ["cat", "dog", "deer", "fox"], [data])
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)" [^>]*alt="image (\d+), (\w+)"', html)
    assert [(number, name) for _, number, name in pictures] == [("0", "cat"), ("1", "dog"), ("20", "cat")]
    # Image 1 is the last but one of the split.
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(pictures[1][0])), format="png")
    assert np.allclose(pixels[..., :3], data.images[38].transpose(1, 2, 0), atol=0.003)
    assert "2 lost" in html
    assert "1 gained" in html
    assert "Only 40 images" in html


def test_methods_stand_side_by_side_with_what_they_cost() -> None:
    html = section([*networks(), network(proved(*range(5)), pruner="hydra")], [])
    for heading in ("Methods", "Differences on the same images", "What they cost", "Groups of methods"):
        assert f"<h4>{heading}</h4>" in html
    assert "HYDRA against LWM" in html
    # Nobody has compacted them.
    assert "What is left of units" not in html


def test_of_two_seeds_other_trainings_are_told() -> None:
    again = [replace(part, cell=msgspec.structs.replace(part.cell, seed=1)) for part in networks()]
    hydra = [network(proved(*range(25 + seed)), pruner="hydra", seed=seed) for seed in (0, 1)]
    html = section([*networks(), *again, *hydra], [])
    assert "<h4>Other trainings</h4>" in html
    assert "<h4>Other trainings, 10×, 40 images</h4>" in html
    assert "Other trainings" not in section([*networks(), *hydra], [])


def test_without_the_data_there_are_numbers_and_no_pictures() -> None:
    for data in ([], [split("another")]):
        html = section(networks(), [], data)
        assert "<img" not in html
        assert "Prune potential" in html


def test_where_nothing_is_compared_there_is_no_section() -> None:
    assert section(networks()[:1], []) == ""


def test_of_hundreds_of_classes_there_is_no_table() -> None:
    parts = [replace(part, labels=np.arange(len(part), dtype=np.int64)) for part in wide()]
    html = section(parts, [])
    assert "excess p" not in html.replace("excess p:", "")
    assert "Prune potential" in html


def wide() -> list[ImageOutcomes]:
    return [network(proved(1, of=150), pruner="dense"), network(proved(2, of=150))]


def test_foreign_names_are_escaped() -> None:
    parts = [network(proved(1), pruner="dense", network="<b>x"), network(proved(1), network="<b>x")]
    html = section(parts, ["<i>"])
    assert "<b>" not in html
    assert "<i>" not in html


def test_classes_have_the_names_of_their_data_set() -> None:
    assert class_names("CIFAR-10 (unofficial copy)")[3] == "cat"
    assert class_names("digits") == class_names("CIFAR-100") == ()


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]), st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_pictures_are_read_back_by_others(height: int, width: int, channels: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((channels, height, width), dtype=np.float32)
    pixels = matplotlib.image.imread(io.BytesIO(png(image)), format="png")
    assert np.allclose(pixels.reshape(height, width, -1)[..., :channels], image.transpose(1, 2, 0), atol=0.003)


def test_an_image_of_two_channels_has_no_picture() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        png(np.zeros((2, 4, 4), dtype=np.float32))
