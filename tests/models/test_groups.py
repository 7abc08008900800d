from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunecert.models.groups import measure


def test_losses_and_gradients_are_those_of_each_class_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    images = np.random.default_rng(0).random((700, 3, 2, 2), dtype=np.float32)
    labels = np.arange(700, dtype=np.int64) % 2
    groups = measure(model, images, labels, 3)
    for label in (0, 1):
        x = torch.from_numpy(images[labels == label])
        loss = F.cross_entropy(model(x), torch.full((350,), label))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert groups.losses[label] == pytest.approx(loss.item(), rel=1e-5)
        assert groups.gradients[label] == pytest.approx(norm.item(), rel=1e-4)
    # No image has the third class.
    assert np.isnan(groups.losses[2])
    assert np.isnan(groups.gradients[2])
    assert all(parameter.grad is None for parameter in model.parameters())
    without = measure(model, images, labels, 3, gradients=False)
    assert without.losses[:2] == pytest.approx(groups.losses[:2], rel=1e-6)
    assert not len(without.gradients)
