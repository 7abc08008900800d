"""Every pruner, as the suites use it: a cell in bfloat16, from its rehearsal to its export."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prunecert.errors import UserError
from prunecert.models import PRUNERS
from prunecert.models.checkpoint import load_model
from prunecert.models.export import export_onnx
from prunecert.models.lent import offers
from prunecert.models.pruners.contract import Hook, method_of
from prunecert.models.pruners.taxonomy import VARIANTS
from tests.models.training_kit import job, pipeline

#: Settings with which a few epochs suffice.
SETTINGS = {
    "boosting": {"share": 0.5},
    "coevolution": {"bound": 0.9, "population": 1, "generations": 1, "images": 20},
    "drop-grow": {"every": 2},
    "flying-bird": {"every": 2},
    "flying-bird-plus": {"every": 2},
    "lwm-rewind": {"rate": 0.9},
    "mad": {"images": 20, "steps": 2},
    "robust-bird": {"most": 0.5},
}


# Variants are their origins to the bit, which their own tests say.
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRUNERS if name not in VARIANTS])
def test_a_cell_is_trained_saved_and_exported_and_comes_out_the_same_again(tmp_path: Path, name: str) -> None:
    settings = {name: SETTINGS[name]} if name in SETTINGS else {}
    one = job(
        name,
        1.1 if name == "structured-filters" else 4.0,
        "mtl-ibp",
        precision="bfloat16",
        batch_size=10,
        pruners=settings,
    )
    one.refuse_unreachable()
    card = pipeline(tmp_path, images=20).run(one)
    model, masks, _ = load_model(tmp_path / f"{card.name}.safetensors")
    assert masks.holds(model)
    # The density of Flying Bird+ and of sampled connections is their own business, and ranks are whole numbers.
    near = {"flying-bird-plus": 0.2, "cstar": 0.05, "connectivity": 0.01}.get(name, 1e-5)
    assert card.kept == pytest.approx(card.weights / one.compression, rel=near)
    assert not list((tmp_path / "work").glob("*.done.pt"))
    # This time the pre-trained network is found, which draws other random numbers than training it.
    torch.manual_seed(123)
    assert pipeline(tmp_path, images=20).run(one).sha256 == card.sha256
    assert export_onnx(tmp_path / f"{card.name}.safetensors", tmp_path / "net.onnx").max_difference < 1e-3


@pytest.mark.slow
def test_cells_come_out_the_same_in_whatever_order_and_however_many_at_a_time(tmp_path: Path) -> None:
    """One folder and one pre-trained network for all, from the first cell to the last or back, or a folder for each."""
    jobs = [job(name, 4.0, batch_size=10, pruners={name: SETTINGS.get(name, {})}) for name in ("mad", "harp", "ard")]
    orders = {"forth": [(one, "forth") for one in jobs], "back": [(one, "back") for one in reversed(jobs)]}
    orders["apart"] = [(one, one.pruner) for one in jobs]
    results = {
        way: {one.pruner: pipeline(tmp_path / folder, images=20).run(one).sha256 for one, folder in order}
        for way, order in orders.items()
    }
    assert results["forth"] == results["back"] == results["apart"]


@pytest.mark.parametrize("name", list(PRUNERS))
def test_what_a_pruner_is_lent_it_names(name: str) -> None:
    prune = PRUNERS.get(name)
    method, keywords = method_of(prune), inspect.signature(prune).parameters
    assert "train" in keywords or not (method.needs or method.from_scratch)
    assert method.needs <= frozenset(Hook)
    assert (prune.__doc__ or "").strip()


@pytest.mark.parametrize("name", list(PRUNERS))
def test_a_compression_that_leaves_fewer_weights_than_layers_is_refused_before_training(name: str) -> None:
    with pytest.raises(UserError, match=r"cell_.* is refused.*allowed"):
        job(name, 7e4).refuse_unreachable()


@pytest.mark.parametrize("name", list(PRUNERS))
def test_hooks_that_training_with_noise_lacks_are_named_before_it_starts(name: str) -> None:
    lacking = method_of(PRUNERS.get(name)).needs - offers("smoothing")
    if not lacking:
        assert not method_of(PRUNERS.get(name)).needs - {Hook.STEP, Hook.SCORES, Hook.REGULARISER, Hook.SURGERY}
        return
    with pytest.raises(UserError, match=f"'{name}' is refused: it needs .*{min(lacking)}.*training by smoothing lacks"):
        job(name, 2.0, "smoothing").refuse_unreachable()


@pytest.mark.parametrize(("name", "settings"), [("grafting", {}), ("ard", {"form": "certified"}), ("ard", {})])
def test_methods_that_bound_refuse_a_network_that_has_no_bounds(name: str, settings: dict[str, str]) -> None:
    one = replace(job(name, 10.0, "pgd", pruners={name: settings}), network="vgg16")
    if (name, settings) == ("ard", {}):
        # The attacked form needs no bounds.
        one.refuse_unreachable()
        return
    with pytest.raises(UserError, match="MaxPool2d"):
        one.refuse_unreachable()
