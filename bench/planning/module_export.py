"""Somebody's PyTorch module as an ONNX file that every verifier reads, checked against the module itself."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from prunecert.bench.planning.module_copy import plain_copy
from prunecert.errors import UserError
from prunecert.files import replacing
from prunecert.onnx.count import count_layers, totals
from prunecert.onnx.io import first_line, identity, load_model, reason_of
from prunecert.onnx.normalise import normalise
from prunecert.onnx.rounding import forget
from prunecert.pages import definitions
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.formats.support import mark_rewritten

if TYPE_CHECKING:
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


def export_module(
    module: nn.Module, target: Path, sample: Tensor, exporter: Exporter = "auto", opset: int | None = None
) -> ExportedNetwork:
    """Writes a module as an ONNX file for verifiers, and checks what was written; see `prunecert.export`.

    Args:
        module: The network, in evaluation mode.
        target: The file to write; replaced as a whole, or left as it was.
        sample: One input, float32 [1, …], on the CPU.
        exporter: ``trace``, ``dynamo`` or ``auto``.
        opset: ONNX opset that torch writes; None: 17, and 18 for ``dynamo``.

    Raises:
        UserError: The module is in training mode, doesn't take the sample, is random, or can't be exported.
    """
    plain = plain_copy(module)
    outputs = _run(plain.module, sample)
    with replacing(target) as scratch:
        used = _write(plain.module, sample, scratch, exporter, opset)
        with _called_by_its_owner(scratch):
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


@contextlib.contextmanager
def _called_by_its_owner(scratch: Path) -> Iterator[None]:
    """Words refusals of what was written about the network, not about a file that nobody has seen."""
    try:
        yield
    except UserError as error:
        sentence = error.sentence
        for name in (f"Network {scratch}", f"Network {scratch.name}", str(scratch), scratch.name):
            sentence = sentence.replace(name, "The exported network")
        raise UserError(sentence, error.details) from error


@torch.no_grad()
def _run(module: nn.Module, sample: Tensor) -> Tensor:
    """Returns a module's outputs [1, classes].

    Raises:
        UserError: It doesn't take the input, gives something else than a row of outputs, or something else each time.
    """
    shape = tuple(sample.shape)
    try:
        # Each time a copy: a module may normalise its input in place, and the caller's image stays what it is.
        outputs = module(sample.clone())
        again = module(sample.clone())
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
                (sample.clone(),),
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
                (sample.clone(),),
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
        # What couldn't be written is printed beside what is raised, from C++: torch 2.13 turns that log on whatever its
        # switch says.
        log = torch._C._jit_onnx_log
        torch._C._jit_onnx_log = lambda *_: None
        try:
            yield caught
        finally:
            torch._C._jit_onnx_log = log
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
    forget(model)
    # With external data read in, whatever the exporter wrote.
    onnx.save(model, str(path))
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        # onnx raises what it likes: of types that its operators lack, for example.
        raise UserError(
            f"The exported network is refused by onnx ({reason_of(error)}); what it names must be of float32: take "
            "autocast and other types out of the module's forward."
        ) from error
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
    own = np.concatenate(
        [cast(Callable[[Tensor], Tensor], module)(torch.from_numpy(p[None].copy())).numpy() for p in points]
    )
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
