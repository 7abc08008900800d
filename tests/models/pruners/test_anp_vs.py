"""ANP-VS: moments and divergence of the gates, whose gradients go where, and folding that changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models.checkpoint import load_model
from prunecert.models.masks import prunable
from prunecert.models.networks.gated import Gate, gates_of
from prunecert.models.pruners.anp_vs import features, fold, insert, loss, prune, vulnerability
from prunecert.models.pruners.contract import Batch
from tests.models.conftest import Lent, small_residual
from tests.models.training_kit import job, pipeline


@pytest.mark.parametrize(("a", "b"), [(-1.0, 0.5413), (1.0, 2.0), (0.0, -0.5)])
def test_the_mean_of_samples_is_the_closed_form(a: float, b: float) -> None:
    torch.manual_seed(0)
    gate = Gate(1)
    with torch.no_grad():
        gate.a_raw.fill_(a)
        gate.b_raw.fill_(b)
    samples = gate.probabilities(torch.rand(100_000, 1))
    assert float(samples.detach().mean()) == pytest.approx(float(gate.mean().detach()), rel=0.01)


def test_the_divergence_is_0_at_the_prior_and_finite_at_the_clamps() -> None:
    gate = Gate(1).double()
    with torch.no_grad():
        # Softplus of these is 1e-4 and 1: the prior itself.
        gate.a_raw.fill_(float(torch.tensor(1e-4).double().expm1().log()))
    assert float(gate.divergence().detach()) == pytest.approx(0, abs=1e-6)
    for a in torch.logspace(-5, 1, 15).double():
        for b in torch.logspace(-2, 1.5, 15).double():
            with torch.no_grad():
                gate.a_raw.fill_(float(a.expm1().log()))
                gate.b_raw.fill_(float(b.expm1().log()))
            assert float(gate.divergence().detach()) >= -1e-9, "no divergence is negative"
    for a in (-1000.0, -10.0, 0.0, 100.0):
        for b in (-1000.0, -10.0, 0.5413, 50.0, 1000.0):
            with torch.no_grad():
                gate.a_raw.fill_(a)
                gate.b_raw.fill_(b)
            assert bool(torch.isfinite(gate.divergence()))
            assert bool(torch.isfinite(gate.mean()).all())


def test_the_divergence_s_gradient_is_that_of_finite_differences() -> None:
    gate = Gate(3).double()
    with torch.no_grad():
        gate.a_raw.copy_(torch.tensor([-1.0, 0.5, 2.0]))
        gate.b_raw.copy_(torch.tensor([0.5, 3.0, -1.0]))
    gate.divergence().backward()  # type: ignore[no-untyped-call]
    for parameter in (gate.a_raw, gate.b_raw):
        assert parameter.grad is not None
        for index in range(3):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    parameter[index] += step
                    values.append(float(gate.divergence()))
                    parameter[index] -= step
            assert float(parameter.grad[index]) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-7)


def test_folding_leaves_outputs_as_they_were(tiny: nn.Module) -> None:
    places = insert(tiny)
    with torch.no_grad():
        for gate in gates_of(tiny):
            gate.a_raw.normal_()
            gate.b_raw.normal_()
    x = torch.rand(8, 3, 8, 8)
    before = tiny.eval()(x)
    means = fold(tiny, places)
    assert torch.allclose(tiny(x), before, atol=1e-6)
    assert [len(mean) for mean in means] == [6, 8, 20]
    assert not gates_of(tiny)


def test_vulnerability_is_0_where_nothing_is_attacked(tiny: nn.Module) -> None:
    insert(tiny)
    x = torch.rand(4, 3, 8, 8)
    state = torch.get_rng_state()
    _, one = features(tiny, x, {})
    torch.set_rng_state(state)
    _, two = features(tiny, x, {})
    assert len(one) == 3
    assert float(vulnerability(one, two).detach()) == 0
    _, other = features(tiny, (x + 0.1).clamp(0, 1), {})
    assert float(vulnerability(one, other).detach()) > 0


def gradients(model: nn.Module, beta: float, suppression: float) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    model.zero_grad()
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8)
    loss(Batch(model, x, y, 0.05, 1.0, lambda: x.sum()), beta=beta, suppression=suppression, images=8).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_each_loss_reaches_its_own_parameters(tiny: nn.Module) -> None:
    torch.manual_seed(0)
    insert(tiny)
    plain, divergent, suppressed = (gradients(tiny, *pair) for pair in ((0.0, 0.0), (5.0, 0.0), (0.0, 100.0)))
    for name in plain:
        is_gate = name.endswith("_raw")
        assert torch.equal(plain[name], divergent[name]) != is_gate, "the divergence is the gates' alone"
        if is_gate:
            assert torch.equal(plain[name], suppressed[name]), "the vulnerability is the weights' alone"
    assert not torch.equal(plain["0.weight"], suppressed["0.weight"])


def test_squared_weights_cost_what_is_said(tiny: nn.Module) -> None:
    insert(tiny)
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8)
    values = []
    for l2 in (0.0, 0.5):
        torch.manual_seed(3)
        batch = Batch(tiny, x, y, 0.05, 1.0, lambda: x.sum())
        values.append(loss(batch, beta=0.0, suppression=0.0, images=8, l2=l2).item())
    squares = sum(float(weight.detach().square().sum()) for weight in prunable(tiny).values())
    assert values[1] - values[0] == pytest.approx(0.25 * squares, rel=1e-3)


@pytest.mark.parametrize("ratio", [2, 6])
def test_units_of_closed_gates_go(tiny: nn.Module, ratio: float) -> None:
    def close(model: nn.Module) -> None:
        with torch.no_grad():
            gates_of(model)[2].a_raw[:10] = -8.0

    lent = Lent(epochs=4, update=close)
    masks = prune(tiny, ratio, train=lent)
    assert masks.kept == round(masks.total / ratio)
    rows = masks["5.weight"].any(1)
    assert int(rows[:10].sum()) < int(rows[10:].sum())
    assert [(call["name"], call["epochs"]) for call in lent.calls] == [("gated", 2)]
    assert lent.calls[0]["groups"][1].factor == 10
    assert not gates_of(tiny)


@pytest.mark.slow
def test_a_cell_is_trained_and_saved_without_gates(tmp_path: Path) -> None:
    card = pipeline(tmp_path, images=60).run(job("anp-vs", 10.0, finetune_epochs=3))
    assert card.kept == round(card.weights / 10)
    model, masks, _ = load_model(tmp_path / card.name)
    assert masks.holds(model)
    assert len(prunable(model)) == 4
    assert card.surgery == {}


def test_what_it_cannot_do_is_refused_before_training(tiny: nn.Module) -> None:
    lent = Lent()
    with pytest.raises(UserError, match="allowed are networks without residual blocks"):
        prune(small_residual(), 2, train=lent)
    with pytest.raises(UserError, match="beta -1 is refused"):
        prune(tiny, 2, train=lent, beta=-1)
    with pytest.raises(UserError, match="Compression 8 is refused: with 50%"):
        prune(tiny, 8, train=lent, floor=0.5)
    assert not lent.calls
