from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.models import NETWORKS
from prunecert.models.building import CLASSES, SHAPE, build_for, build_network, takes_shapes


@given(
    st.sampled_from(["cnn-small", "cnn-large"]),
    st.integers(1, 4),
    st.integers(4, 13),
    st.integers(4, 13),
    st.integers(2, 12),
)
@settings(max_examples=20, deadline=None)
def test_networks_take_images_of_any_shape(name: str, channels: int, height: int, width: int, classes: int) -> None:
    network = build_network(name, (channels, height, width), classes)
    assert network(torch.zeros(2, channels, height, width)).shape == (2, classes)


def test_cnn7_takes_odd_sizes_too() -> None:
    assert build_network("cnn7", (1, 5, 7), 3)(torch.zeros(1, 1, 5, 7)).shape == (1, 3)


def test_the_shipped_shape_is_cifar10s_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name in NETWORKS if takes_shapes(name)] == ["cnn-large", "cnn-small", "cnn7"]
    torch.manual_seed(0)
    one = build_network("cnn-small")
    torch.manual_seed(0)
    other = NETWORKS.get("cnn-small")()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert build_for("vgg-8", {})(torch.zeros(2, *SHAPE)).shape == (2, CLASSES)


def test_networks_for_other_images_are_refused_with_those_that_take_them() -> None:
    with pytest.raises(
        UserError, match=r"'vgg-8' is for images of shape \[3, 32, 32\].*allowed are cnn-large, cnn-small"
    ):
        build_network("vgg-8", (1, 8, 8), 10)
    with pytest.raises(UserError, match="too small for it"):
        build_network("cnn-small", (1, 1, 1), 10)


@pytest.mark.parametrize("data", [{"name": "x"}, {"shape": [1, 8], "classes": 3}, {"shape": [1, 8, 8], "classes": 1}])
def test_a_card_must_say_its_shape(data: dict[str, object]) -> None:
    with pytest.raises(UserError, match="three sizes and classes"):
        build_for("cnn-small", data)
