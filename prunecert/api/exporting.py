"""Somebody's PyTorch module as an ONNX file that every verifier reads, checked against the module itself."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from prunecert.api.copying import plain_copy
from prunecert.api.inputs import as_array
from prunecert.api.pages import definitions
from prunecert.errors import UserError
from prunecert.files import replacing
from prunecert.onnx.count import count_layers, totals
from prunecert.onnx.io import first_line, identity, load_model
from prunecert.onnx.normalise import normalise
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.formats.support import mark_rewritten

if TYPE_CHECKING:
    from prunecert.api.inputs import Arrays
    from prunecert.onnx.normal import Normalised

Exporter = Literal["auto", "trace", "dynamo"]
INPUT, OUTPUT = "input", "logits"
OPSET = 17
#: Opsets that torch's exporters write and the normal form reads.
OPSETS = range(13, 24)
_DYNAMO_OPSET = 18
_CHECK_POINTS = 32
#: torch's exporters keep state of their own, and warnings are caught for the whole process.
_exporting = threading.Lock()


@dataclass(frozen=True)
class ExportedNetwork:
    """What `export` wrote.

    Args:
        path: The ONNX file; it holds all weights.
        sha256: What the network is known by.
        input_shape: Shape of one input, without the batch axis.
        classes: How many outputs it has.
        weights: Weights of its convolutions and linear layers.
        kept: Those that are not zero.
        max_difference: Largest difference of an output from the module's, on the inputs that were compared.
        exporter: ``trace`` or ``dynamo``.
        permanent: Parameters whose pruning or parametrisation was made permanent in the file.
        refusal: Why the file isn't in the normal form that all verifiers take; empty if it is.
    """

    path: Path
    sha256: str
    input_shape: tuple[int, ...]
    classes: int
    weights: int
    kept: int
    max_difference: float
    exporter: str
    permanent: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def compression(self) -> float:
        """All weights over those that are not zero."""
        return self.weights / max(1, self.kept)

    @property
    def sparsity(self) -> float:
        """Zeros over all weights."""
        return 1 - self.kept / self.weights

    def __repr__(self) -> str:
        return (
            f"<{self.path.name}: {'x'.join(map(str, self.input_shape))} to {self.classes}, {self.kept:,} of "
            f"{self.weights:,} weights ({self.compression:.3g}x)>"
        )

    def _repr_html_(self) -> str:
        return definitions(
            {
                "network": str(self.path),
                "input": " × ".join(map(str, self.input_shape)),
                "outputs": str(self.classes),
                "weights": f"{self.kept:,} of {self.weights:,} ({self.compression:.3g}×)",
                "largest difference from the module": f"{self.max_difference:.2g}",
                "pruning made permanent": ", ".join(self.permanent) or "–",
                "normal form": self.refusal or "yes",
            }
        )


def export(
    module: nn.Module, path: str | Path, example: Arrays, *, exporter: Exporter = "auto", opset: int | None = None
) -> ExportedNetwork:
    """Writes a module as an ONNX file for verifiers, and checks what was written.

    The module is not changed. Masks that `torch.nn.utils.prune` has left are made permanent in the file, batch norm
    and a normalisation of the inputs are folded into the layers, and all weights are in the one file. It is checked by
    `onnx.checker` and by its outputs in onnxruntime against the module's.

    Args:
        module: The network, in evaluation mode: inputs [N, …] to outputs [N, classes].
        path: The file to write; replaced as a whole, or left as it was.
        example: One input, or a batch of which the first is taken. A batch axis may be missing before one axis or
            three.
        exporter: ``trace`` follows the module's computation on the example; ``dynamo`` reads its program, and needs
            the package onnxscript; ``auto`` traces, and reads the program where what is computed hangs on the input.
        opset: ONNX opset that torch writes; the normal form has its own. None: 17, and 18 for ``dynamo``.

    Example:
        >>> import torch, prunecert
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> _ = torch.nn.utils.prune.l1_unstructured(net[1], "weight", amount=0.5)
        >>> prunecert.export(net, "net.onnx", torch.zeros(1, 1, 4, 4))
        <net.onnx: 1x4x4 to 3, 88 of 152 weights (1.73x)>

    Returns:
        What was written.

    Raises:
        UserError: The module is in training mode, doesn't take the example, is random, or can't be exported.
    """
    target = Path(path)
    if target.suffix != ".onnx":
        raise UserError(f"The path {str(path)!r} is refused; it must end in .onnx.")
    if not target.parent.is_dir():
        raise UserError(f"The path {str(path)!r} is refused: there is no folder {str(target.parent)!r}; make it first.")
    if exporter not in ("auto", "trace", "dynamo"):
        raise UserError(f"exporter={exporter!r} is refused; allowed are 'auto', 'trace' and 'dynamo'.")
    if opset is not None and opset not in OPSETS:
        raise UserError(f"opset={opset} is refused; allowed are {OPSETS.start} to {OPSETS.stop - 1}.")
    plain = plain_copy(module)
    sample = as_example(example)
    outputs = _run(plain.module, sample)
    with replacing(target) as scratch:
        used = _write(plain.module, sample, scratch, exporter, opset)
        refusal = _settle(scratch)
        difference = _compare(scratch, plain.module, sample)
        weights, kept = totals(count_layers(scratch))
    return ExportedNetwork(
        path=target,
        sha256=identity(target),
        input_shape=tuple(sample.shape[1:]),
        classes=outputs.shape[1],
        weights=weights,
        kept=kept,
        max_difference=difference,
        exporter=used,
        permanent=plain.permanent,
        refusal=refusal,
    )


def as_example(example: Arrays) -> Tensor:
    """Returns one input as a float32 tensor [1, …] on the CPU.

    Raises:
        UserError: It is no array of finite numbers, or empty.
    """
    array = as_array(example, "example")
    values = np.ascontiguousarray(array, dtype=np.float32)
    if values.size == 0 or array.ndim == 0 or not np.isfinite(values).all():
        raise UserError(
            f"The example of shape {array.shape} is refused; pass one input of finite numbers as the module takes it, "
            "e.g. torch.zeros(1, 3, 32, 32)."
        )
    return torch.from_numpy(values[None] if values.ndim in (1, 3) else values[:1])


@torch.no_grad()
def _run(module: nn.Module, sample: Tensor) -> Tensor:
    """Returns a module's outputs [1, classes].

    Raises:
        UserError: It doesn't take the input, gives something else than a row of outputs, or something else each time.
    """
    shape = tuple(sample.shape)
    try:
        outputs = module(sample)
        again = module(sample)
    except Exception as error:
        # A module may raise anything.
        raise UserError(
            f"The module doesn't take an input of shape {shape} ({type(error).__name__}: {first_line(error)}); pass "
            "one input of the size that it was made for, channels first, e.g. torch.zeros(1, 3, 32, 32)."
        ) from error
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != 1:
        what = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UserError(
            f"The module gives {what} for an input of shape {shape}; a tensor [1, classes] is needed: wrap the module "
            "in one whose forward returns its logits."
        )
    if not bool(torch.isfinite(outputs).all()):
        raise UserError("The module's outputs are not finite on the example; train it again, or pass another example.")
    if not torch.equal(outputs, again):
        raise UserError(
            "The module gives other outputs each time it is called, so that nothing can be proved of it; take what is "
            "random out of its forward (a dropout that ignores module.eval(), say)."
        )
    return outputs


def _write(module: nn.Module, sample: Tensor, path: Path, exporter: Exporter, opset: int | None) -> str:
    """Has torch write the module; returns which exporter did."""
    if exporter == "dynamo":
        _by_program(module, sample, path, opset or _DYNAMO_OPSET)
        return "dynamo"
    doubts = _by_trace(module, sample, path, opset or OPSET)
    if not doubts:
        return "trace"
    if exporter == "auto" and _has_onnxscript():
        _by_program(module, sample, path, opset or _DYNAMO_OPSET)
        return "dynamo"
    raise UserError(
        f"The module can't be traced faithfully, because what it computes hangs on its input's values ({doubts[0]}); "
        "write it without such a condition, or export it with exporter='dynamo' (pip install onnxscript)."
    )


def _by_trace(module: nn.Module, sample: Tensor, path: Path, opset: int) -> list[str]:
    """Exports by following one computation; returns what torch doubts about it, a line each."""
    with _quietly() as caught:
        try:
            torch.onnx.export(
                module,
                (sample,),
                str(path),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                do_constant_folding=True,
                dynamo=False,
            )
        except Exception as error:
            # torch's exporter raises what it likes.
            raise _not_exported(error) from error
    return [
        f"{Path(item.filename).name}, line {item.lineno}"
        for item in caught
        if item.category.__name__ == "TracerWarning" and "Python boolean" in str(item.message)
    ]


def _by_program(module: nn.Module, sample: Tensor, path: Path, opset: int) -> None:
    """Exports by reading the module's program."""
    if not _has_onnxscript():
        raise UserError("exporter='dynamo' needs the package onnxscript; call: pip install onnxscript")
    with _quietly():
        try:
            program = torch.onnx.export(
                module,
                (sample,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            program.save(str(path), external_data=False)
        except Exception as error:
            raise _not_exported(error) from error


def _not_exported(error: Exception) -> UserError:
    return UserError(
        f"torch can't export the module ({type(error).__name__}: {first_line(error)}); replace what it names, or try "
        "the other exporter (exporter='trace' or 'dynamo')."
    )


def _has_onnxscript() -> bool:
    import importlib.util

    return importlib.util.find_spec("onnxscript") is not None


@contextlib.contextmanager
def _quietly() -> Iterator[list[warnings.WarningMessage]]:
    """Catches what torch's exporters print, log and warn of; yields the warnings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    with _exporting, warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("always")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield caught
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _settle(path: Path) -> str:
    """Turns a file into its normal form where that is the same function of the same input; returns why not, if not."""
    model = load_model(path)
    refusal, normal = "", _normal_form(model)
    if isinstance(normal, str):
        refusal = normal
    elif normal.changed and _same_function(normal, model):
        model = normal.model
    # torch, too, multiplies batch norm into weights, so that they are the module's up to a rounding.
    mark_rewritten(model)
    # With external data read in, whatever the exporter wrote.
    onnx.save(model, str(path))
    onnx.checker.check_model(str(path), full_check=True)
    return refusal


def _normal_form(model: onnx.ModelProto) -> Normalised | str:
    """Returns a network's normal form, or why it has none."""
    try:
        return normalise(model)
    except UserError as error:
        return error.sentence


def _same_function(normal: Normalised, model: onnx.ModelProto) -> bool:
    def shape(one: onnx.ModelProto) -> list[int]:
        return [dim.dim_value for dim in one.graph.input[0].type.tensor_type.shape.dim]

    return normal.last == "none" and normal.input_order is None and shape(normal.model) == shape(model)


@torch.no_grad()
def _compare(path: Path, module: nn.Module, sample: Tensor) -> float:
    """Compares a file's outputs in onnxruntime with the module's; returns the largest difference.

    Raises:
        UserError: They differ by more than rounding.
    """
    low, high = min(0.0, float(sample.min())), max(1.0, float(sample.max()))
    shape = tuple(sample.shape[1:])
    generator = np.random.default_rng(0)
    points = np.stack(
        [
            sample[0].numpy(),
            *(np.full(shape, value, dtype=np.float32) for value in (low, high)),
            *(generator.uniform(low, high, shape).astype(np.float32) for _ in range(_CHECK_POINTS)),
        ]
    )
    written = counterexample.outputs(path, points)
    own = np.concatenate([cast(Callable[[Tensor], Tensor], module)(torch.from_numpy(p[None])).numpy() for p in points])
    difference = largest_difference(written, own)
    # Sums of a few thousand float32 products in another order; a wrong translation is off by far more.
    if written.shape != own.shape or not difference <= 1e-3 * max(1.0, float(np.abs(own).max())):
        raise UserError(
            f"The exported network is refused: its outputs in onnxruntime differ from the module's by up to "
            f"{difference:.3g}; what it computes hangs on something else than its input, so write it without, or "
            "export it with exporter='dynamo'."
        )
    return difference


def largest_difference(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Returns the largest absolute difference of two arrays; infinite if their shapes differ, or one is NaN."""
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max(initial=0.0))


def standardised(module: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Returns a module for pixels in [0, 1] from one for normalised inputs: (x - mean) / std is its first layer.

    Radii are then of pixels. The layer is folded when the module is exported.

    Args:
        module: A module that takes normalised images [N, C, H, W].
        mean: Of each channel.
        std: Of each channel, above 0.

    Example:
        >>> import torch, prunecert
        >>> from torch import nn
        >>> net = prunecert.standardised(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), mean=[0.5], std=[0.25]).eval()
        >>> net(torch.full((1, 1, 2, 2), 0.5)).shape
        torch.Size([1, 2])

    Raises:
        UserError: The two have different lengths, or a deviation isn't above 0.
    """
    from prunecert.models.networks.normalised import Standardise

    if len(mean) != len(std) or not len(mean) or not all(value > 0 for value in std):
        raise UserError(
            f"mean={mean!r}, std={std!r} are refused; pass a number for each channel, e.g. mean=[0.1307], "
            "std=[0.3081], the deviations above 0."
        )
    return nn.Sequential(Standardise(mean, std), module)
