"""Linearity grafting: what is chosen, what stays the same, and that verifiers see lines where there are lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models import NETWORKS
from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.checkpoint import load_model
from prunecert.models.compact_export import export_compact
from prunecert.models.crown import crown_ibp_margins, symbolic_margins
from prunecert.models.export import export_model, export_onnx
from prunecert.models.masks import Masks
from prunecert.models.networks.grafted import GraftedReLU
from prunecert.models.pruners.contract import Altered
from prunecert.models.pruners.grafting import prune, statistics, worst
from prunecert.models.surgery import operate
from prunecert.onnx.count import count_layers, totals
from prunecert.verifiers.process.worker import Worker
from tests.models.conftest import Lent, small_residual
from tests.models.training_kit import job, pipeline
from tests.verifiers import onnxnets


def graft(model: nn.Module, shapes: Shapes, share: float = 0.5, spread: float = 0.5) -> None:
    """Grafts random neurons with random lines, slopes of both signs included."""
    operate(model, {"grafted": shapes})
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, GraftedReLU):
                layer.grafted.copy_(torch.rand(layer.grafted.shape) < share)
                layer.slope.normal_(0.4, spread)
                layer.offset.normal_(0, 0.1)


Shapes = dict[str, list[list[int]]]
SHAPES: Shapes = {"1": [[6, 8, 8], [6, 8, 8]], "3": [[8, 4, 4], [8, 4, 4]], "6": [[20], [20]]}
BY_CHANNEL: Shapes = {"1": [[6, 8, 8], [6, 1, 1]], "3": [[8, 4, 4], [8, 1, 1]], "6": [[20], [20]]}


def test_lines_that_say_what_the_relus_said_change_nothing(tiny: nn.Module) -> None:
    """Slope 1 where a neuron is active on all images, 0 where it is on none."""
    x = torch.rand(16, 3, 8, 8)
    before = tiny(x)
    boxes = propagate(tiny, x, 0.0).boxes
    operate(tiny, {"grafted": SHAPES})
    for layer, (center, _) in zip((tiny.get_submodule(name) for name in SHAPES), boxes, strict=True):
        assert isinstance(layer, GraftedReLU)
        active, silent = (center > 0).all(0), (center <= 0).all(0)
        with torch.no_grad():
            layer.grafted.copy_(active | silent)
            layer.slope.copy_(active.float())
    assert torch.allclose(tiny(x), before, atol=1e-6)


def test_lines_of_slope_0_are_pruned_neurons(tiny: nn.Module) -> None:
    x = torch.rand(4, 3, 8, 8)
    graft(tiny, SHAPES)
    hidden = tiny.get_submodule("6")
    assert isinstance(hidden, GraftedReLU)
    with torch.no_grad():
        hidden.slope.zero_()
        hidden.offset.zero_()
        grafted = tiny(x)
        last = tiny.get_submodule("7")
        assert isinstance(last, nn.Linear)
        last.weight[:, hidden.grafted] = 0
        hidden.grafted.zero_()
    assert torch.allclose(tiny(x), grafted, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("shapes", [SHAPES, BY_CHANNEL])
@pytest.mark.parametrize("eps", [0.01, 0.3])
def test_bounds_hold_at_sampled_points(tiny: nn.Module, shapes: Shapes, eps: float) -> None:
    graft(tiny, shapes)
    x, y = torch.rand(3, 3, 8, 8), torch.tensor([0, 4, 9])
    bounds = propagate(tiny, x, eps)
    margins = [
        interval_margins(bounds, y),
        crown_ibp_margins(tiny, x, eps, bounds, y),
        symbolic_margins(tiny, x, eps, y),
    ]
    for _ in range(300):
        corner = torch.rand_like(x).round() if torch.rand(()) < 0.5 else torch.rand_like(x)
        logits = tiny((x + eps * (2 * corner - 1)).clamp(0, 1))
        actual = logits.gather(1, y[:, None]) - logits
        for bound in margins:
            assert bool((bound <= actual + 1e-4).all())
    # Lines have no gap: where all neurons are lines, CROWN's bound is exact for each margin.
    for layer in tiny.modules():
        if isinstance(layer, GraftedReLU):
            layer.grafted.fill_(True)
    exact = crown_ibp_margins(tiny, x, eps, propagate(tiny, x, eps), y)
    for image in range(3):
        for label in range(10):
            point = x[image : image + 1].clone().requires_grad_(True)
            logits = tiny(point)[0]
            (slope,) = torch.autograd.grad(logits[y[image]] - logits[label], point)
            lowest = (point - eps * slope.sign()).clamp(0, 1)
            logits = tiny(lowest)[0]
            assert float((logits[y[image]] - logits[label]).detach()) == pytest.approx(
                float(exact[image, label].detach()), abs=1e-4
            )


def big(shapes: Shapes) -> nn.Module:
    torch.manual_seed(1)
    model = NETWORKS.get("cnn-small")()
    graft(model, shapes)
    return model.eval()


LARGE: Shapes = {"1": [[16, 16, 16]] * 2, "3": [[32, 8, 8]] * 2, "6": [[100], [100]]}
LARGE_BY_CHANNEL: Shapes = {"1": [[16, 16, 16], [16, 1, 1]], "3": [[32, 8, 8], [32, 1, 1]], "6": [[100], [100]]}


@pytest.mark.parametrize("shapes", [LARGE, LARGE_BY_CHANNEL])
def test_the_export_computes_the_same_and_counts_the_same_weights(tmp_path: Path, shapes: Shapes) -> None:
    model = big(shapes)
    info = export_model(model, Masks.dense(model), {}, tmp_path / "net.onnx")
    assert info.sparsity == 0.0
    assert totals(count_layers(info.path)) == (214_760, 214_760), "lines are no weights"
    assert info.max_difference < 1e-4
    operators = [node.op_type for node in onnx.load(info.path).graph.node]
    assert operators.count("Mul") == (3 if shapes is LARGE else 1)
    session = onnxruntime.InferenceSession(str(info.path), providers=["CPUExecutionProvider"])
    # At the edge of the domain, where the shifts are as large as they get.
    for x in (np.zeros((1, 3, 32, 32), np.float32), np.ones((1, 3, 32, 32), np.float32)):
        (logits,) = session.run(None, {"input": x})
        assert np.allclose(logits, model(torch.from_numpy(x)).detach().numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_verifier_sees_lines_as_stable(tmp_path: Path) -> None:
    """At most what was unstable before without what was grafted of it: no verifier branches on a line."""
    plain = NETWORKS.get("cnn-small")()
    model = big(LARGE_BY_CHANNEL)
    state = {name: value for name, value in model.state_dict().items() if name in plain.state_dict()}
    plain.load_state_dict(state)
    export_model(plain.eval(), Masks.dense(plain), {}, tmp_path / "plain.onnx")
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, GraftedReLU):
                layer.grafted.fill_(True)
    all_lines = export_model(model, Masks.dense(model), {}, tmp_path / "lines.onnx")
    counts = {}
    for verifier in ("sparse-crown", "crown"):
        with Worker(verifier, threads=1) as worker:
            for path in (tmp_path / "plain.onnx", all_lines.path):
                (verdict,) = worker.verify([onnxnets.instance(path, 8 / 255)])
                assert verdict.unstable is not None, verdict.detail
                counts[verifier, path.stem] = verdict.unstable
    assert counts["sparse-crown", "plain"] > 0
    assert counts["sparse-crown", "lines"] == counts["crown", "lines"] == 0


@pytest.mark.slow
def test_what_is_grafted_is_what_is_no_longer_unstable(tmp_path: Path) -> None:
    """Lines in the last layer, where they change no other's bounds: two halves take away what the whole does."""
    model = big(LARGE_BY_CHANNEL)
    last = [layer for layer in model.modules() if isinstance(layer, GraftedReLU)][-1]
    half = torch.arange(100) % 2 == 0
    counts = {}
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, GraftedReLU):
                layer.grafted.fill_(False)
        for name, mask in {"none": half & ~half, "even": half, "odd": ~half, "all": half | ~half}.items():
            last.grafted.copy_(mask)
            export_model(model, Masks.dense(model), {}, tmp_path / f"{name}.onnx")
    for verifier in ("sparse-crown", "crown"):
        with Worker(verifier, threads=1) as worker:
            for name in ("none", "even", "odd", "all"):
                (verdict,) = worker.verify([onnxnets.instance(tmp_path / f"{name}.onnx", 8 / 255)])
                assert verdict.unstable is not None, verdict.detail
                counts[name] = verdict.unstable
        fewer = {name: counts["none"] - count for name, count in counts.items()}
        assert 0 < fewer["even"] < fewer["all"]
        assert fewer["even"] + fewer["odd"] == fewer["all"]


def test_the_most_unstable_and_least_active_are_grafted() -> None:
    unstable = [torch.tensor([0.9, 0.0, 0.5, 0.9]), torch.tensor([0.0, 0.8])]
    active = [torch.tensor([0.1, 1.0, 5.0, 3.0]), torch.tensor([0.2, 0.1])]
    # Activations over their layer's mean are 0.04, 0.4, 2.2, 1.3 and 1.3, 0.7. Ranks of instability are 5, 1, 2.5, 5
    # and 1, 3.5, of silence 5.5, 4.5, 0.5, 2.5 and 1.5, 3.5; their sums 10.5, 5.5, 3, 7.5 and 2.5, 7.
    for share, expected in ((1 / 6, [[0], []]), (1 / 3, [[0, 3], []]), (1 / 2, [[0, 3], [1]])):
        masks = worst(unstable, active, share)
        assert [mask.nonzero().flatten().tolist() for mask in masks] == expected
    assert sum(int(mask.sum()) for mask in worst(unstable, active, 1.0)) == 6


def test_statistics_are_shares_and_means(tiny: nn.Module) -> None:
    unstable, active = statistics(tiny, Lent(), 40)
    images = torch.cat([x for x, _ in Lent().batches(40)])
    boxes = propagate(tiny, images, 2 / 255).pre
    for share, mean, (lower, upper) in zip(unstable, active, boxes, strict=True):
        assert torch.allclose(share, ((lower < 0) & (upper > 0)).float().mean(0))
        assert bool((mean <= upper.clamp_min(0).mean(0) + 1e-5).all())


@pytest.mark.parametrize("ratio", [1.0, 10.0])
@pytest.mark.parametrize("slopes", ["neuron", "channel"])
def test_it_returns_a_network_with_lines_that_are_trained_at_their_own_rate(
    tiny: nn.Module, ratio: float, slopes: str
) -> None:
    lent = Lent()
    altered = prune(tiny, ratio, train=lent, share=0.25, slopes=slopes)
    assert isinstance(altered, Altered)
    assert altered.masks.kept == round(altered.masks.total / ratio)
    layers = [layer for layer in altered.model.modules() if isinstance(layer, GraftedReLU)]
    assert len(layers) == 3
    assert sum(int(layer.grafted.sum()) for layer in layers) == round(0.25 * (6 * 64 + 8 * 16 + 20))
    assert layers[0].slope.shape == ((6, 8, 8) if slopes == "neuron" else (6, 1, 1))
    assert [(call["name"], call["epochs"]) for call in lent.calls] == (
        [("lines", 10)] if ratio == 1 else [("recover", 5), ("lines", 5)]
    )
    weights, lines = lent.calls[-1]["groups"]
    assert (weights.factor, lines.factor, lines.decay) == (1.0, 10.0, 0.0)
    assert {id(one) for one in lines.parameters} == {id(p) for layer in layers for p in layer.parameters()}
    assert len(weights.parameters) == 8


@pytest.mark.slow
def test_a_grafted_cell_is_saved_loaded_and_exported(tmp_path: Path) -> None:
    settings = {"grafting": {"share": 0.4, "images": 60}}
    card = pipeline(tmp_path, images=60).run(job("grafting", 5.0, pruners=settings))
    assert card.kept == round(card.weights / 5)
    assert card.surgery == {"grafted": LARGE_BY_CHANNEL}
    model, masks, again = load_model(tmp_path / card.name)
    assert again == card
    assert sum(int(m.grafted.sum()) for m in model.modules() if isinstance(m, GraftedReLU)) == round(0.4 * 6244)
    info = export_onnx(tmp_path / f"{card.name}.safetensors", tmp_path / "net.onnx")
    assert info.sparsity == pytest.approx(0.8, abs=1e-4)
    small = export_compact(info.path, tmp_path / "small.onnx")
    assert small.max_difference < 1e-4
    assert masks.holds(model)
    slopes = [m.slope for m in model.modules() if isinstance(m, GraftedReLU)]
    assert any(bool((slope != 0.4).any()) for slope in slopes), "lines are trained"


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


@pytest.mark.parametrize("slopes", ["neuron", "channel"])
def test_residual_networks_are_grafted_too(tmp_path: Path, slopes: str) -> None:
    torch.manual_seed(0)
    model = small_residual()
    altered = prune(model, 1.0, train=Lent32(epochs=0), share=0.6, slopes=slopes)
    assert set(altered.surgery["grafted"]) == {"2", "3.relu1", "3.relu2", "7"}
    info = export_model(model.eval(), altered.masks, {}, tmp_path / "net.onnx")
    assert info.max_difference < 1e-4


class Lent32(Lent):
    def batches(self, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.rand(20, 3, 32, 32), torch.arange(20) % 10


def test_what_cannot_be_grafted_is_refused(tiny: nn.Module) -> None:
    lent = Lent()
    model = nn.Sequential(nn.Linear(2, 2), Functional(), nn.Linear(2, 2))
    with pytest.raises(UserError, match="1 of the network's 1 ReLUs are no layers of their own"):
        prune(model, 1.5, train=lent)
    for settings, message in (({"share": 1.5}, "share 1.5 is refused"), ({"slopes": "layer"}, "slopes")):
        with pytest.raises(UserError, match=message):
            prune(tiny, 2, train=lent, **settings)
    with pytest.raises(UserError, match="'grafting' is refused: it needs activation"):
        job("grafting", 2.0, objective="smoothing").refuse_unreachable()
    assert not lent.calls
