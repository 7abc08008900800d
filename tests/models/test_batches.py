from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunecert.models import NETWORKS
from prunecert.models.batches import LARGE, SMALL, Activations, batches_for, count_activations, fitting
from prunecert.models.evaluate import evaluate
from tests.models.conftest import blobs, normalised, small_residual


def test_on_the_cpu_they_are_as_they_were() -> None:
    assert batches_for(nn.Flatten(), torch.zeros(1, 3, 2, 2)) == SMALL
    assert (SMALL.images, SMALL.crown) == (250, 50)


def test_what_layers_put_out_is_counted(tiny: nn.Module) -> None:
    # 3x8x8; 6x8x8 twice; 8x4x4 twice and flattened; 20 twice; 10.
    activations = count_activations(tiny.eval(), torch.rand(1, 3, 8, 8))
    assert activations == Activations(192 + 2 * 384 + 3 * 128 + 2 * 20 + 10, 384, 10)
    assert not any(module._forward_hooks for module in tiny.modules())


def test_layers_of_blocks_are_counted_and_the_network_is_left_as_it_was() -> None:
    for model, size in ((normalised().eval(), 8), (small_residual().eval(), 32)):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        activations = count_activations(model, torch.rand(1, 3, size, size))
        assert activations.classes == 10
        assert activations.total > 2 * activations.largest
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@given(
    st.integers(1, 10**7),
    st.floats(0.01, 1.0),
    st.integers(2, 1000),
    st.integers(0, 200 << 30),
)
def test_they_fit_into_a_part_of_the_memory_unless_they_are_small(
    total: int, part: float, classes: int, free: int
) -> None:
    activations = Activations(total, max(1, int(part * total)), classes)
    batches = fitting(activations, free)
    assert SMALL.images <= batches.images <= LARGE.images
    assert SMALL.crown <= batches.crown <= LARGE.crown
    # An attack holds each layer's output and its gradient; rows go back from each class of each image.
    if batches.images > SMALL.images:
        assert batches.images * 2 * 4 * total < free / 2
    if batches.crown > SMALL.crown:
        assert batches.crown * 4 * (2 * classes * activations.largest + 2 * total) < free / 2
    more = fitting(activations, 2 * free)
    assert (more.images, more.crown) >= (batches.images, batches.crown)


def test_a_card_of_80_gigabytes_takes_the_field_s_networks_in_large_batches() -> None:
    for name in ("cnn-small", "cnn5", "resnet-2b"):
        activations = count_activations(NETWORKS.get(name)().eval(), torch.rand(1, 3, 32, 32))
        batches = fitting(activations, 80 << 30)
        assert batches.images >= 16 * SMALL.images, name
        assert batches.crown >= 8 * SMALL.crown, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_card_the_batches_that_are_chosen_fit() -> None:
    model = NETWORKS.get("cnn-small")().cuda().eval()
    assert batches_for(model, torch.rand(1, 3, 32, 32, device="cuda")).images > SMALL.images
    torch.cuda.reset_peak_memory_stats()
    free = torch.cuda.mem_get_info()[0]
    evaluate(model, blobs(6000), 2 / 255, device="cuda")
    assert torch.cuda.max_memory_allocated() < 0.5 * free
