from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from prunecert.bench.planning.module_copy import plain_copy, unwrapped
from prunecert.errors import UserError
from tests import modules


@pytest.fixture(name="small")
def _small() -> nn.Module:
    return modules.small()


def test_what_pruning_has_left_is_made_permanent_in_the_copy_alone(small: nn.Sequential) -> None:
    pruning: Any = prune
    pruning.l1_unstructured(small[4], "weight", amount=0.5)
    pruning.random_structured(small[0], "weight", amount=1, dim=0)
    pruning.random_unstructured(small[0], "bias", amount=2)
    pruning.ln_structured(small[0], "weight", amount=1, n=2, dim=0)
    x = torch.rand(5, 1, 4, 4)
    # As after a step of training: what was computed last is older than the parameters.
    with torch.no_grad():
        small[4].get_parameter("weight_orig").mul_(2.0)
    copied = plain_copy(small)
    assert set(copied.permanent) == {"0.weight", "0.bias", "4.weight"}
    assert not [name for name, _ in copied.module.named_parameters() if name.endswith("_orig")]
    assert not list(copied.module.named_buffers(recurse=True))[3:]
    assert torch.equal(copied.module(x), small(x))
    assert pruning.is_pruned(small)
    assert not pruning.is_pruned(copied.module)


def test_parametrised_weights_become_plain_ones(small: nn.Sequential) -> None:
    class Masked(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * (weight.abs() > 0.05)

    parametrize.register_parametrization(small[4], "weight", Masked())
    parametrizations.weight_norm(small[6])
    x = torch.rand(5, 1, 4, 4)
    copied = plain_copy(small)
    assert set(copied.permanent) == {"4.weight", "6.weight"}
    assert torch.allclose(copied.module(x), small(x), atol=1e-6)
    assert not parametrize.is_parametrized(copied.module)
    assert parametrize.is_parametrized(small[4])


def test_wrappers_are_taken_off(small: nn.Module) -> None:
    assert unwrapped(nn.DataParallel(small)) is small

    class Compiled(nn.Module):
        """As torch.compile wraps a module, without importing its compiler."""

        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = small

    assert unwrapped(Compiled()) is unwrapped(nn.DataParallel(Compiled())) is small
    assert unwrapped(small) is small


def test_training_mode_is_named_with_what_to_call(small: nn.Sequential) -> None:
    with pytest.raises(UserError, match=r"it is in training mode; call module.eval\(\)"):
        plain_copy(small.train())
    small.eval()
    small[1].train()
    with pytest.raises(UserError, match=r"layer '1' \(BatchNorm2d\) is in training mode"):
        plain_copy(small)
    small[1].eval()
    # What computes the same in both modes may be in either.
    small[4].train()
    plain_copy(small)


def test_other_types_of_numbers_are_told_what_to_call(small: nn.Module) -> None:
    with pytest.raises(UserError, match=r"float16.*module.float\(\)"):
        plain_copy(small.half())


def test_what_is_no_module_or_cannot_be_copied_is_refused(small: nn.Module) -> None:
    with pytest.raises(UserError, match=r"a torch\.nn\.Module, the path"):
        plain_copy(3)  # type: ignore[arg-type]

    class Handle:
        def __deepcopy__(self, memo: object) -> None:
            raise TypeError("cannot copy a handle")

    small.handle = Handle()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"can't be copied .*a handle.*pass the \.onnx file"):
        plain_copy(small)


@pytest.mark.parametrize(
    ("thing", "remedy"),
    [
        (nn.Linear, r"pass an instance: Linear\(…\).eval\(\)"),
        (nn.Linear(2, 2).state_dict(), "load_state_dict"),
        (None, "pass a torch.nn.Module"),
        ({}, "pass a torch.nn.Module"),
        (nn.Linear(2, 2, device="meta").eval(), "without weights"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(2)).eval(), r"'1.weight' has no weights yet"),
    ],
)
def test_what_is_no_module_is_told_what_to_pass(thing: Any, remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        plain_copy(thing)


def test_what_torch_export_has_made_is_told_to_be_left_alone(small: nn.Module) -> None:
    """It has no evaluation mode to be brought into."""

    class Exported(torch.fx.GraphModule):
        def eval(self) -> Any:
            raise NotImplementedError

    graph = torch.fx.symbolic_trace(small)
    assert plain_copy(graph).permanent == ()
    exported = Exported(graph, graph.graph)
    exported.training = True
    with pytest.raises(UserError, match="pass the module that it was made of"):
        plain_copy(exported)


def test_synchronised_batch_norm_is_plain_batch_norm(small: nn.Module) -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2))
    net(torch.rand(8, 1, 4, 4))
    net.eval()
    x = torch.rand(5, 1, 4, 4)
    convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm
    copied = plain_copy(convert(net)).module
    assert torch.equal(copied(x), net(x))
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in copied.modules())
