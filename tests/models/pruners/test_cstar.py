"""CSTAR: what low rank is, that its numbers are counted everywhere alike, and that verifiers see the product."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from prunecert.compaction import Mode
from prunecert.errors import UserError
from prunecert.models import NETWORKS
from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.checkpoint import load_model
from prunecert.models.compact_export import export_compact
from prunecert.models.crown import crown_ibp_margins
from prunecert.models.export import export_onnx
from prunecert.models.masks import prunable
from prunecert.models.networks.factorised import saved
from prunecert.models.pruners.cstar import prune, refuse_beyond
from prunecert.onnx.count import count_layers, totals
from prunecert.onnx.factors import composed_weights
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


@pytest.mark.parametrize("ratio", [1, 1.5, 2, 4, 10])
def test_the_numbers_of_the_factors_fit_the_budget_and_hardly_less(tiny: nn.Module, ratio: float) -> None:
    total = sum(weight.numel() for weight in prunable(tiny).values())
    altered = prune(tiny, ratio, train=Lent())
    products = saved(altered.model)
    stored = sum(products.get(name, weight.numel()) for name, weight in prunable(altered.model).items())
    assert stored <= round(total / ratio)
    # The next number of the largest layer doesn't fit.
    assert stored > round(total / ratio) - (128 + 20)
    assert altered.masks.kept == total


def test_the_distance_to_low_rank_falls_over_the_rounds() -> None:
    """The objective pulls back to where it was; the dual makes up for it."""
    torch.manual_seed(0)
    tiny = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 20))
    distances: list[float] = []
    start = {name: weight.detach().clone() for name, weight in prunable(tiny).items()}

    class Rounds(Lent):
        def __call__(self, model: nn.Module, epochs: int, **more: object) -> None:
            if more["name"] != "ranks":
                return
            hooks = more["hooks"]
            for _ in range(12):
                for _ in range(4):
                    weights = prunable(model)
                    own = 0.01 * sum(((weights[name] - start[name]) ** 2).sum() for name in start)
                    loss = own + hooks.regulariser()  # type: ignore[attr-defined]
                    gradients = torch.autograd.grad(loss, list(weights.values()))
                    with torch.no_grad():
                        for weight, gradient in zip(weights.values(), gradients, strict=True):
                            weight -= 0.5 * gradient
                target = dict(zip(start, hooks.memory["target"], strict=True))  # type: ignore[attr-defined]
                gap = sum(float(((w.detach() - target[n]) ** 2).sum()) for n, w in prunable(model).items())
                distances.append(gap)
                hooks.epoch(None)  # type: ignore[attr-defined]

    prune(tiny, 4, train=Rounds(), rho=1.0)
    assert distances[-1] < 0.05 * distances[0]


@pytest.mark.slow
def test_at_the_shipped_rho_the_distance_falls_in_training(tmp_path: Path) -> None:
    options: dict[str, Any] = {"prune_epochs": 5, "finetune_epochs": 0, "batch_size": 5}
    card = pipeline(tmp_path, images=100).run(job("cstar", 8.0, "ibp", **options))
    distances = card.notes["distances"]
    assert len(distances) == 5
    assert distances[-1] < 0.8 * distances[0]


def test_too_much_is_refused_before_anything_is_trained(tiny: nn.Module) -> None:
    lent = Lent()
    with pytest.raises(UserError, match=r"all ranks 1 the factors have [\d,]+ numbers.*at most"):
        prune(tiny, 100, train=lent)
    with pytest.raises(UserError, match="rho 0 is refused"):
        prune(tiny, 2, train=lent, rho=0)
    with pytest.raises(UserError, match="has groups"):
        prune(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), 2, train=lent)
    assert not lent.calls
    # What it names as allowed is allowed.
    network = NETWORKS.get("cnn-small")()
    with pytest.raises(UserError, match="at most 9") as error:
        refuse_beyond(network, 100)
    refuse_beyond(network, float(str(error.value).rstrip(".").split()[-1]))


@pytest.mark.slow
def test_a_cell_counts_the_same_in_card_file_and_export_and_verifiers_see_the_product(tmp_path: Path) -> None:
    one = job("cstar", 8.0, "ibp")
    one.refuse_unreachable()
    card = pipeline(tmp_path, images=40).run(one)
    checkpoint = tmp_path / f"{card.name}.safetensors"
    model, masks, _ = load_model(checkpoint)
    info = export_onnx(checkpoint, tmp_path / "net.onnx")
    stored, nonzero = totals(count_layers(info.path))
    assert card.kept == stored == nonzero <= card.weights / 8
    assert composed_weights(info.path) == card.weights == masks.total
    assert info.compression == pytest.approx(card.weights / card.kept)
    assert card.sparsity == pytest.approx(info.sparsity)
    assert set(card.surgery) == {"factorised"}
    # Multiplied for the verifiers, with the same outputs, and not where nothing may be rounded.
    fused = export_compact(info.path, tmp_path / "compact.onnx")
    assert fused.path.name == "compact.onnx"
    assert fused.record.masked_sha256 == info.sha256
    kinds = [layer.kind for layer in count_layers(fused.path)]
    assert kinds == ["Conv", "Conv", "Gemm", "Gemm"]
    x = np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    for path in (info.path, fused.path):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert np.allclose(session.run(None, {"input": x})[0], expected, atol=1e-4)
    assert len(count_layers(export_compact(info.path, tmp_path / "exact.onnx", Mode.EXACT).path)) > 4


@pytest.mark.slow
def test_bounds_are_those_of_the_product(tiny: nn.Module) -> None:
    """By intervals and by CROWN, a network of factors is as tight as the one that its products make."""
    factorised = prune(tiny, 4, train=Lent()).model
    torch.manual_seed(1)
    plain = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 20),
        nn.ReLU(),
        nn.Linear(20, 10),
    )
    weights = prunable(factorised)
    biases = {name: value for name, value in factorised.named_parameters() if name.endswith(".bias")}
    plain.load_state_dict({**{n: w.detach() for n, w in weights.items()}, **{n: b.detach() for n, b in biases.items()}})
    x, y = torch.rand(4, 3, 8, 8), torch.arange(4)
    with torch.no_grad():
        boxes = [propagate(model, x, 0.05) for model in (factorised, plain)]
        one, other = (interval_margins(bounds, y) for bounds in boxes)
        assert torch.allclose(one, other, atol=1e-5)
        crown = [
            crown_ibp_margins(model, x, 0.05, bounds, y)
            for model, bounds in zip((factorised, plain), boxes, strict=True)
        ]
        assert torch.allclose(crown[0], crown[1], atol=1e-5)
        for _ in range(20):
            logits = factorised((x + 0.05 * (2 * torch.rand_like(x) - 1)).clamp(0, 1))
            margins = logits.gather(1, y[:, None]) - logits
            assert bool((margins >= torch.maximum(one, crown[0]) - 1e-4).all())
