from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import prunecert
from prunecert.api.exporting import as_example
from prunecert.bench.planning.module_export import largest_difference
from prunecert.errors import UserError
from prunecert.onnx.count import count_layers, totals
from prunecert.onnx.normal import is_normal
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.formats.support import is_rewritten

needs_onnxscript = pytest.mark.skipif(
    importlib.util.find_spec("onnxscript") is None, reason="onnxscript is not installed"
)


def halve(layer: nn.Module) -> None:
    l1_unstructured: Any = prune.l1_unstructured
    l1_unstructured(layer, "weight", amount=0.5)


def same(path: Path, module: nn.Module, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> bool:
    points = np.random.default_rng(1).uniform(low, high, (20, *shape)).astype(np.float32)
    with torch.no_grad():
        own = module(torch.from_numpy(points)).numpy()
    return bool(np.allclose(outputs(path, points), own, atol=1e-5))


def test_a_pruned_network_is_written_in_normal_form_with_its_zeros(small: nn.Sequential, tmp_path: Path) -> None:
    halve(small[4])
    written = prunecert.export(small, tmp_path / "net.onnx", torch.rand(2, 1, 4, 4))
    model = onnx.load(written.path)
    assert is_normal(model)
    assert is_rewritten(model)
    assert {node.op_type for node in model.graph.node} <= {"Conv", "Relu", "Flatten", "Gemm", "Reshape"}
    assert same(written.path, small, (1, 4, 4))
    assert written.permanent == ("4.weight",)
    assert (written.input_shape, written.classes, written.refusal) == ((1, 4, 4), 3, "")
    assert (written.weights, written.kept) == totals(count_layers(written.path)) == (36 + 512 + 24, 36 + 256 + 24)
    assert written.sparsity == pytest.approx(1 - 1 / written.compression)
    assert repr(written) == "<net.onnx: 1x4x4 to 3, 316 of 572 weights (1.81x)>"
    assert "316 of 572" in written._repr_html_()
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@needs_onnxscript
@pytest.mark.slow
def test_both_exporters_write_the_same_function(small: nn.Sequential, tmp_path: Path) -> None:
    halve(small[4])
    written = prunecert.export(small, tmp_path / "net.onnx", torch.rand(1, 1, 4, 4), exporter="dynamo")
    assert (written.exporter, written.refusal, written.kept) == ("dynamo", "", 316)
    assert same(written.path, small, (1, 4, 4))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_a_normalisation_of_the_inputs_is_folded(small: nn.Module, tmp_path: Path) -> None:
    whole = prunecert.standardised(small, mean=[0.3], std=[0.2]).eval()
    written = prunecert.export(whole, tmp_path / "net.onnx", torch.rand(1, 1, 4, 4))
    assert same(written.path, whole, (1, 4, 4))
    assert is_normal(onnx.load(written.path))

    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.inner((x - 0.3) / 0.2))

    own = prunecert.export(Written().eval(), tmp_path / "own.onnx", torch.rand(1, 1, 4, 4))
    assert same(own.path, Written().eval(), (1, 4, 4))
    assert is_normal(onnx.load(own.path))
    for mean, std in (([0.3], [0.2, 0.2]), ([], []), ([0.3], [0.0])):
        with pytest.raises(UserError, match="a number for each channel"):
            prunecert.standardised(small, mean, std)


def test_what_has_no_normal_form_is_kept_as_torch_writes_it_and_says_so(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    written = prunecert.export(net, tmp_path / "net.onnx", torch.rand(1, 1, 2, 2))
    assert "Tanh" in written.refusal
    assert same(written.path, net, (1, 2, 2))


def test_a_last_softmax_stays(small: nn.Sequential, tmp_path: Path) -> None:
    net = nn.Sequential(*small, nn.Softmax(dim=1)).eval()
    assert same(prunecert.export(net, tmp_path / "net.onnx", torch.rand(1, 1, 4, 4)).path, net, (1, 4, 4))


class Forked(nn.Module):
    """Computes something else where the mean of its input is high."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.one(x) if x.mean() > 0.9 else self.other(x))


def test_a_condition_on_the_inputs_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hangs on its input's values .*test_exporting.py, line"):
        prunecert.export(Forked().eval(), tmp_path / "net.onnx", torch.rand(1, 4), exporter="trace")
    assert not list(tmp_path.iterdir())


def test_outputs_that_differ_from_the_modules_are_refused(
    small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever an exporter does wrong."""
    export = torch.onnx.export

    def wrong(module: nn.Module, *args: Any, **options: Any) -> Any:
        with torch.no_grad():
            cast(nn.Sequential, module)[6].bias[0] += 0.5  # type: ignore[index, operator]
        result = export(module, *args, **options)
        with torch.no_grad():
            cast(nn.Sequential, module)[6].bias[0] -= 0.5  # type: ignore[index, operator]
        return result

    monkeypatch.setattr(torch.onnx, "export", wrong)
    with pytest.raises(UserError, match=r"differ from the module's by up to 0.5"):
        prunecert.export(small, tmp_path / "net.onnx", torch.rand(1, 1, 4, 4))
    assert not list(tmp_path.iterdir())


class Answering(nn.Module):
    """Gives what it is told to."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda x: (x, x), "gives tuple .*wrap the module"),
        (lambda x: {"logits": x}, "gives dict"),
        (lambda x: x[:, None], r"shape \(1, 1, 4\)"),
        (lambda x: x / 0, "not finite"),
        (lambda x: x + torch.rand(4), "other outputs each time"),
        (lambda x: x @ torch.zeros(3, 2), r"doesn't take an input of shape \(1, 4\) \(RuntimeError"),
    ],
)
def test_modules_that_are_no_classifiers_are_refused(answer: Callable[[Tensor], Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        prunecert.export(Answering(answer).eval(), tmp_path / "net.onnx", torch.rand(1, 4) + 1)


def test_an_example_may_lack_its_batch_axis_and_must_be_numbers() -> None:
    for shape in ((1, 4, 4), (1, 1, 4, 4), (7, 1, 4, 4)):
        assert as_example(torch.zeros(shape)).shape == (1, 1, 4, 4)
    assert as_example(np.zeros(5)).shape == (1, 5)
    wrong: tuple[Any, ...] = (np.zeros((0, 3)), np.float32(1), np.array([np.nan]))
    for example in wrong:
        with pytest.raises(UserError, match="pass one input"):
            as_example(example)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"path": "net.pt"}, "must end in .onnx"),
        ({"path": "nowhere/net.onnx"}, "no folder"),
        ({"exporter": "jit"}, "allowed are 'auto'"),
        ({"opset": 9}, "allowed are 13 to"),
        ({"example": torch.rand(1, 1, 9, 9)}, "doesn't take an input of shape"),
    ],
)
def test_bad_arguments_leave_what_was_there(
    options: dict[str, Any], why: str, small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"old")
    arguments = {"path": "net.onnx", "example": torch.rand(1, 1, 4, 4), **options}
    with pytest.raises(UserError, match=why):
        prunecert.export(small, **arguments)
    assert (tmp_path / "net.onnx").read_bytes() == b"old"


def test_threads_may_export_at_once(small: nn.Module, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.onnx" for number in range(4)]
    threads = [threading.Thread(target=prunecert.export, args=(small, path, torch.rand(1, 1, 4, 4))) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.read_bytes() for path in paths}) == 1


def test_arrays_that_cannot_be_compared_are_infinitely_far_apart() -> None:
    assert largest_difference(np.zeros(2), np.array([0.0, -3.0])) == 3
    assert largest_difference(np.zeros(2), np.zeros(3)) == largest_difference(np.zeros(1), np.array([np.nan])) == np.inf


def test_a_network_over_rows_takes_a_batch_of_one(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).eval()
    written = prunecert.export(net, tmp_path / "net.onnx", torch.rand(1, 3, 8))
    assert written.input_shape == (3, 8)
    assert same(written.path, net, (3, 8))


class Autocast(nn.Module):
    """Computes in another type than its weights have."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(1, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu"):
            return cast(Tensor, self.inner(x).float().flatten(1))


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (Autocast(), "refused by onnx .* must be of float32"),
        (Answering(lambda x: x.flatten(1).sort(1)[0][:, :2]), "^The exported network holds no convolution"),
        (Answering(lambda x: torch.fft.fft(x.flatten(1)).real), "torch can't export the module"),
    ],
)
def test_what_cannot_be_written_is_said_of_the_network_and_nothing_else_is_printed(
    module: nn.Module, why: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=why):
        prunecert.export(module.eval(), tmp_path / "net.onnx", torch.rand(1, 3, 3))
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
