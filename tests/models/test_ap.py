"""Checkpoints of the Adversarial Pruning benchmark are read as what they are, or refused by the tensor that differs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models import NETWORKS
from prunecert.models.ap import load_ap, parse_key, units_pruned
from prunecert.models.masks import Masks
from prunecert.models.networks.resnet import resnet_18
from prunecert.models.networks.vgg import vgg16_ap

State = dict[str, Tensor]


def narrow_resnet() -> nn.Module:
    return resnet_18(4)


def narrow_vgg() -> nn.Module:
    return vgg16_ap(4)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers narrow networks."""
    monkeypatch.setitem(NETWORKS._targets, "narrow-resnet", "tests.models.test_ap:narrow_resnet")
    monkeypatch.setitem(NETWORKS._targets, "narrow-vgg", "tests.models.test_ap:narrow_vgg")


def norm(name: str, channels: int) -> State:
    return {
        f"{name}.weight": torch.rand(channels) + 0.5,
        f"{name}.bias": torch.randn(channels),
        f"{name}.running_mean": torch.randn(channels),
        f"{name}.running_var": torch.rand(channels) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def kernel(outputs: int, inputs: int, size: int) -> Tensor:
    weight = torch.randn(outputs, inputs, size, size) / math.sqrt(inputs * size * size)
    return weight * (torch.rand(weight.shape) < 0.5)


def resnet_state(width: int = 4) -> State:
    """Returns random weights under the names that a ResNet-18 for CIFAR-10 usually has."""
    torch.manual_seed(0)
    state = {"conv1.weight": kernel(width, 3, 3), **norm("bn1", width)}
    inputs = width
    for group in range(4):
        outputs = width * 2**group
        for block in range(2):
            name = f"layer{group + 1}.{block}"
            state |= {f"{name}.conv1.weight": kernel(outputs, inputs, 3), **norm(f"{name}.bn1", outputs)}
            state |= {f"{name}.conv2.weight": kernel(outputs, outputs, 3), **norm(f"{name}.bn2", outputs)}
            if inputs != outputs:
                state |= {
                    f"{name}.shortcut.0.weight": kernel(outputs, inputs, 1),
                    **norm(f"{name}.shortcut.1", outputs),
                }
            inputs = outputs
    return state | {"linear.weight": torch.randn(10, inputs) / inputs**0.5, "linear.bias": torch.randn(10)}


def normalise(state: State, name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, variance, weight, bias)


def resnet_logits(state: State, x: Tensor) -> Tensor:
    """Returns what such a network says, written down from He et al. 2016."""
    x = normalise(state, "bn1", F.conv2d(x, state["conv1.weight"], padding=1)).relu()
    for group in range(4):
        for block in range(2):
            name, stride = f"layer{group + 1}.{block}", 2 if group and not block else 1
            y = normalise(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"], None, stride, 1)).relu()
            y = normalise(state, f"{name}.bn2", F.conv2d(y, state[f"{name}.conv2.weight"], padding=1))
            if f"{name}.shortcut.0.weight" in state:
                x = normalise(
                    state, f"{name}.shortcut.1", F.conv2d(x, state[f"{name}.shortcut.0.weight"], None, stride)
                )
            x = (x + y).relu()
    x = x.mean((2, 3))
    return F.linear(x, state["linear.weight"], state["linear.bias"])


def load(folder: Path, state: Any, network: str = "narrow-resnet") -> tuple[nn.Module, Masks]:
    torch.save(state, folder / "a.pt")
    return load_ap(folder / "a.pt", network, sha256_file(folder / "a.pt"))


def test_a_resnet_is_read_by_order_under_any_names(tmp_path: Path) -> None:
    state, x = resnet_state(), torch.rand(3, 3, 32, 32)
    parallel = {f"module.{key}": value for key, value in state.items()}
    for whole in (state, {"state_dict": state, "epoch": 5}, {"net": parallel}):
        model, masks = load(tmp_path, whole)
        with torch.no_grad():
            assert torch.allclose(model(x), resnet_logits(state, x), atol=1e-4)
        assert masks.kept == sum(int(v.count_nonzero()) for v in state.values() if v.ndim > 1)
        assert masks.holds(model)


def test_masks_beside_weights_are_multiplied_in(tmp_path: Path) -> None:
    state, masked = resnet_state(), {}
    for key, value in state.items():
        if value.ndim == 4:
            masked[f"{key}_orig"] = torch.where(value == 0, 1.0, value)
            masked[f"{key}_mask"] = (value != 0).float()
        else:
            masked[key] = value
    one, other = load(tmp_path, masked)[0].state_dict(), load(tmp_path, state)[0].state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_vgg_has_two_by_two_places_before_its_head(tmp_path: Path) -> None:
    source = narrow_vgg()
    state = {f"features.{key}": value for key, value in source.state_dict().items()}
    model, _ = load(tmp_path, state, "narrow-vgg")
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(x), source.eval()(x))
    assert sum(1 for layer in model.modules() if isinstance(layer, nn.MaxPool2d)) == 4


def change(**tensors: Tensor | None) -> State:
    state = {key: tensors.get(key.replace(".", "__"), value) for key, value in resnet_state().items()}
    return {key: value for key, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (change(conv1__weight=torch.zeros(5, 3, 3, 3)), r"the weight of '0' of narrow-resnet, of shape \[4, 3, 3, 3\]"),
        (change(bn1__bias=None), "the bias of '1'"),
        (change(linear__bias=None), "it ends before the bias"),
        ({**resnet_state(), "extra.weight": torch.ones(1)}, "'extra.weight' and what follows have no place"),
        ({**resnet_state(), "linear.popup_scores": torch.ones(1)}, "are scores, and only their method's code"),
        (change(conv1__weight=torch.full((4, 3, 3, 3), torch.nan)), "not finite"),
        ({"conv1.weight_mask": torch.ones(2)}, "follows no weight of its shape"),
        ({"conv1.weight": torch.ones(2), "conv1.weight_mask": torch.tensor([0.5, 1])}, "other numbers than 0 and 1"),
        ({"net": 3}, "holds no state dictionary"),
        ([1], "holds no state dictionary"),
        ({"a": Path("x")}, "cannot be read"),
    ],
)
def test_what_is_no_such_network_is_refused(tmp_path: Path, state: Any, match: str) -> None:
    with pytest.raises(UserError, match=match):
        load(tmp_path, state)


def scored_state() -> tuple[State, State]:
    """Returns a state with HYDRA's scores after weights and biases, and the same with its masks multiplied in."""
    state, scored, pruned = resnet_state(), {}, {}
    for key, value in state.items():
        scored[key] = pruned[key] = value
        if value.ndim > 1:
            scored[f"{key.removesuffix('weight')}popup_scores"] = scores = torch.randn(value.shape)
            kept = value.numel() - int(0.9 * value.numel())
            least = scores.abs().flatten().topk(kept).values.min()
            pruned[key] = value * (scores.abs() >= least)
    # A layer's bias stands between its weight and its scores.
    bias = scored.pop("linear.bias")
    scores = scored.pop("linear.popup_scores")
    return {**scored, "linear.bias": bias, "linear.popup_scores": scores}, pruned


def test_hydra_s_scores_stand_for_masks_by_the_key_s_rate(tmp_path: Path) -> None:
    scored, pruned = scored_state()
    expected = load(tmp_path, pruned)[0].state_dict()
    torch.save(scored, tmp_path / "a.pt")
    model, masks = load_ap(tmp_path / "a.pt", "narrow-resnet", sha256_file(tmp_path / "a.pt"), scored=0.9)
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert masks.sparsity > 0.9
    with pytest.raises(UserError, match="are scores"):
        load(tmp_path, scored)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"conv1.popup_scores": torch.ones(4, 3, 3, 3)}, "scores of 'conv1' are equal where the pruned ones end"),
        ({"conv1.popup_scores": torch.ones(2)}, "have the shape"),
        ({"nowhere.popup_scores": torch.ones(2)}, "'nowhere' have no weights"),
    ],
)
def test_scores_that_do_not_say_which_weights_go_are_refused(tmp_path: Path, changed: State, match: str) -> None:
    torch.save({**scored_state()[0], **changed}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=match):
        load_ap(tmp_path / "a.pt", "narrow-resnet", sha256_file(tmp_path / "a.pt"), scored=0.9)


def test_filters_and_channels_that_are_zero_are_counted_apart() -> None:
    first, second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)
    model = nn.Sequential(first, second, nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        for layer in (first, second):
            layer.weight.fill_(1.0)
            layer.weight[:2] = 0
        second.weight[:, :3] = 0
    assert units_pruned(model) == (4 / 8, 3 / 6)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        load_ap(tmp_path / "none.pt", "resnet-18", "0")
    torch.save(resnet_state(), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"SHA-256 is .* and 00 was asked for"):
        load_ap(tmp_path / "a.pt", "resnet-18", "00")


def test_keys_say_method_network_and_rate() -> None:
    key = parse_key("RADMM_Ye2019Adversarial_V16_CIFAR10_S_75")
    assert (key.network, key.structured, key.pruner, key.compression) == ("vgg16-ap", True, "radmm", 4.0)
    assert parse_key("Li20_Li2020Towards_R18_CIFAR10_US_95").pruner == "boosting"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("HARP", "write the benchmark's"),
        ("HARP_Z_R19_CIFAR10_US_90", "Did you mean 'R18'"),
        ("HARP_Z_R18_SVHN_US_90", "it is of SVHN"),
        ("HARP_Z_R18_CIFAR10_UX_90", "Did you mean 'US'"),
        ("HARP_Z_R18_CIFAR10_US_50", "has 90, 95, 99 for US"),
    ],
)
def test_other_keys_are_refused(text: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        parse_key(text)
