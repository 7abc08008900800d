"""What the methods of auto_LiRPA share: a batch of bounds by linear relaxation, and when one is a proof.

The bounds are computed in float32, rounded to nearest, so that a bound may be too high by what rounds in the sums
behind it. `verifiers.rounding.lirpa` says by how much at most, from the hidden bounds and coefficients that were just
computed; a bound above that is a proof. That is first said of all images together, which costs next to nothing, then of
each that is left by itself. Those whose bounds are smaller still are bounded anew in float64, where rounding is little:
then the float64 bounds decide, and are the ones that are reported.

Besides, a bound must be above `tolerance`, or 16 times the network's own relative rounding error where that is more
(float32 against float64 outputs, measured on loading), times the scale of the outputs, the largest |A| |y| + |b| of any
row at the centre of the input set, or 1 if that is less: the network that is run is a float32 one, too. What is between
is `unknown`, and says so. `tests/verifiers/adapters/test_lirpa.py` compares float32 with float64 bounds.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.adapters import autolirpa
from prunecert.verifiers.adapters.bounding import in_time, what_is_open
from prunecert.verifiers.adapters.hardware import describe
from prunecert.verifiers.adapters.lirpa import nodes
from prunecert.verifiers.adapters.lirpa.rows import SpecificationRows
from prunecert.verifiers.adapters.torch_adapter import run_module
from prunecert.verifiers.base import (
    Availability,
    Capabilities,
    FloatArray,
    Instance,
    Kind,
    Status,
    Times,
    Verdict,
    Verifier,
)
from prunecert.verifiers.formats.support import OPERATORS
from prunecert.verifiers.settings import Setting

if TYPE_CHECKING:
    import torch

    from prunecert.verifiers.rounding.lirpa import Apart, Computed

_Float64 = npt.NDArray[np.float64]
TOLERANCE = Setting(
    default=1e-5,
    at_least=1e-7,
    below=1,
    help="relative margin of safety against float32 rounding; 1e-7 is the rounding of one float32 operation",
)


class Lirpa(Verifier):
    """What the four methods share: network, specification rows, chunks, verdicts."""

    kind = Kind.INCOMPLETE
    method: ClassVar[str]
    #: Whether the coefficients that bounding leaves in the graph's nodes are those of the bounds.
    keeps_coefficients: ClassVar[bool] = True
    #: Images bounded together on a card, and on the CPU. CROWN bounds a neuron for all images of a chunk if one leaves
    #: it unstable, so that large chunks cost more an image than they save: on the CPU, ten together take 1.6 to 2.2
    #: times as long an image as two.
    chunk: ClassVar[int] = 100
    chunk_cpu: ClassVar[int] = 100
    known_settings: ClassVar[Mapping[str, Setting]] = {"tolerance": TOLERANCE}
    batch_size = 100

    @classmethod
    def availability(cls) -> Availability:
        """Looks for auto_LiRPA."""
        return autolirpa.availability()

    @classmethod
    def capabilities(cls) -> Capabilities:
        """Networks of two-dimensional convolutions, linear layers, ReLU and pooling; any linear property."""
        return Capabilities(operators=OPERATORS, norms=("linf", "l2"), specs="dnf")

    def start(self) -> None:
        """Imports torch and auto_LiRPA, and asks for the device."""
        import torch

        self._torch = torch
        # Its convolutions are Winograd's and FFT's, whose rounding nobody bounds here.
        torch.backends.nnpack.set_flags(False)  # type: ignore[no-untyped-call]
        self._library = autolirpa.library()
        self._label = describe(self.device)
        self._target = torch.device(self.device)

    def load(self, onnx: Path) -> None:
        """Converts the network, checks it against onnxruntime, and measures its rounding error."""
        from prunecert.verifiers.formats.onnx_torch import read_onnx

        torch = self._torch
        module = read_onnx(onnx)
        generator = torch.Generator().manual_seed(0)
        points = torch.rand((8, *module.input_shape), generator=generator)
        with torch.no_grad():
            exact = copy.deepcopy(module).double()(points.double())
            gap = (module(points).double() - exact).abs().max().item()
        self.rounding = gap / max(1.0, exact.abs().max().item())
        self._module = module.to(self._target)
        self._networks: dict[Any, Any] = {}
        self._nodes: dict[Any, Any] = {}
        self._convolutions = "patches"
        self._walk: Any = None
        self._use(torch.float32)
        self._ball_first = module.starts_linear()

    def _use(self, dtype: torch.dtype) -> None:
        """Has the bounds computed in a type from now on."""
        torch = self._torch
        # auto_LiRPA makes some of its tensors without saying of which type.
        torch.set_default_dtype(dtype)
        if dtype not in self._networks:
            # The float32 network's numbers, exactly.
            module = self._module if dtype is torch.float32 else copy.deepcopy(self._module).to(dtype)
            self._networks[dtype] = self._library.BoundedModule(
                module,
                torch.zeros((1, *module.input_shape), device=self._target, dtype=dtype),
                device=self._target,
                bound_opts={**self._options(), "conv_mode": self._convolutions},
            )
            self._networks[dtype].eval()
            nodes.weigh_exactly(self._networks[dtype])
        self._dtype, self._bounded = dtype, self._networks[dtype]

    def evaluate(self, points: FloatArray) -> npt.NDArray[Any] | None:
        """Runs the module that is bounded."""
        return run_module(self._module, points, self._module.input_shape, self._target)

    def _options(self) -> dict[str, Any]:
        return {"verbosity": 0}

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Bounds all specification rows of the instances, chunk by chunk."""
        limit = sum(instance.timeout for instance in instances)
        self._deadline = time.monotonic() + limit
        verdicts: dict[int, Verdict] = {}
        kinds: dict[tuple[str, float | None], list[int]] = {}
        for index, instance in enumerate(instances):
            eps = instance.eps if instance.norm == "l2" else None
            kinds.setdefault((instance.norm, eps), []).append(index)
        parts: list[list[int]] = []
        for (norm, _), indices in kinds.items():
            if norm == "l2" and not self._ball_first:
                reason = f"{self.name} takes l2 balls only where the first layer is a convolution or linear"
                verdicts.update(dict.fromkeys(indices, Verdict(Status.UNSUPPORTED, reason)))
                continue
            parts += self._chunks([instances[i] for i in indices], indices)
        answers = in_time(parts, limit, lambda part: self._attempt([instances[i] for i in part]))
        verdicts.update(zip((i for part in parts for i in part), answers, strict=True))
        return [verdicts[index] for index in range(len(instances))]

    def _chunks(self, instances: list[Instance], indices: list[int]) -> list[list[int]]:
        most = self.chunk_cpu if self._target.type == "cpu" else self.chunk
        size = max(1, min(most, self._room(instances)))
        return [indices[i : i + size] for i in range(0, len(indices), size)]

    def _room(self, instances: list[Instance]) -> int:
        """Returns how many images fit into memory together."""
        return len(instances)

    def _attempt(self, instances: list[Instance]) -> list[Verdict]:
        """Solves a chunk; where convolutions can't be bounded as patches, as matrices, from then on.

        auto_LiRPA's patches are faster, but it can't add those of other strides, nor reshape all of them.
        """
        try:
            return self._solve(instances)
        except (AssertionError, NotImplementedError, RuntimeError) as error:
            if self._convolutions == "matrix" or isinstance(error, self._torch.OutOfMemoryError):
                raise
            self._convolutions = "matrix"
            self._networks.clear()
            self._nodes.clear()
            self._use(self._torch.float32)
            return self._solve(instances)

    def _solve(self, instances: list[Instance]) -> list[Verdict]:
        begin = time.perf_counter()
        rows = SpecificationRows(instances)
        self._use(self._torch.float32)
        lower = self._bound(instances, rows)
        unstable = self._unstable(len(instances))
        margins = self._margins(instances, rows)
        bounds = [rows.disjuncts(i, lower[i]) for i in range(len(instances))]
        seems = [i for i, own in enumerate(bounds) if min(own, default=0.0) > margins[i]]
        unsure = self._unsure(instances, rows, lower, seems)
        # A float64 takes twice the room.
        some = max(1, len(instances) // 2)
        unproved = set(unsure)
        for part in (unsure[first : first + some] for first in range(0, len(unsure), some)):
            exact = [instances[i] for i in part]
            own_rows = SpecificationRows(exact)
            self._use(self._torch.float64)
            try:
                better = self._bound(exact, own_rows)
                still = self._unsure(exact, own_rows, better, range(len(exact)))
            finally:
                self._use(self._torch.float32)
            unproved -= {i for place, i in enumerate(part) if place not in still}
            for place, i in enumerate(part):
                bounds[i] = own_rows.disjuncts(place, better[place])
        self._tighten(instances, rows, lower, bounds, margins, unproved)
        share = (time.perf_counter() - begin) / len(instances)
        return [
            self._verdict(own, float(margins[i]), i not in unproved, int(unstable[i]), share)
            for i, own in enumerate(bounds)
        ]

    def _tighten(
        self,
        instances: list[Instance],
        rows: SpecificationRows,
        lower: _Float64,
        bounds: list[tuple[float, ...]],
        margins: _Float64,
        unproved: set[int],
    ) -> None:
        """Improves bounds of a batch that are too low, if the method can do more than auto_LiRPA; here it can't.

        Args:
            instances: The batch.
            rows: Its rows.
            lower: Their bounds, [images, rows], as auto_LiRPA has computed them just now in float32.
            bounds: Of disjuncts, by image; changed.
            margins: What each image's must exceed.
            unproved: Images whose bounds may be above that by rounding; changed.
        """

    def _unsure(
        self, instances: list[Instance], rows: SpecificationRows, lower: _Float64, indices: Sequence[int]
    ) -> list[int]:
        """Returns which of some images are not proved for certain, as rounding may have raised their bounds.

        Args:
            instances: The batch that was bounded just now.
            rows: Its rows.
            lower: Their bounds, [images, rows].
            indices: The images.
        """
        from prunecert.verifiers.rounding.lirpa import Apart

        left = list(indices)
        for apart in Apart:
            if left and (len(instances) > 1 or apart is Apart.EVERYWHERE):
                # Of all images nothing has to be copied.
                chosen = None if apart is Apart.NOWHERE else left
                less = self._certain(instances, rows, lower, chosen, apart)
                own = less[left] if chosen is None else less
                left = [i for i, row in zip(left, own, strict=True) if not min(rows.disjuncts(i, row), default=0.0) > 0]
        return left

    def _certain(
        self,
        instances: list[Instance],
        rows: SpecificationRows,
        lower: _Float64,
        indices: list[int] | None,
        apart: Apart,
    ) -> _Float64:
        """Returns bounds less what rounding may have raised them by, [images, rows].

        Args:
            instances: The batch that was bounded just now.
            rows: Its rows.
            lower: Their bounds.
            indices: The images that are meant; None: all.
            apart: Where each is looked at by itself.
        """
        from prunecert.verifiers.rounding import lirpa

        less = lower if indices is None else lower[indices]
        computed = self._computed(lower.shape)
        if computed is None:
            return np.full_like(less, -np.inf)
        charges = self._walk.charges(instances, rows.matrix, rows.offsets, computed, self._dtype, indices, apart)
        return lirpa.certain(less, charges)

    def _computed(self, shape: tuple[int, int]) -> Computed | None:
        """Returns what bounding so many images and rows has left behind; None where its rounding is unknown."""
        from prunecert.verifiers.rounding import lirpa

        if self._dtype is self._torch.float32 and self._target.type != "cpu":
            return None
        if self._walk is None:
            self._walk = lirpa.ChargeWalk(self._module)
        if self._dtype not in self._nodes:
            self._nodes[self._dtype] = nodes.matched(self._bounded, self._module)
        graph = self._nodes[self._dtype]
        if graph is None:
            return None
        return nodes.computed(
            graph, self._module, method=self.method, shape=shape, coefficients=self.keeps_coefficients
        )

    def _bound(self, instances: list[Instance], rows: SpecificationRows) -> _Float64:
        """Returns lower bounds of A y - b, [images, rows]."""
        with self._torch.no_grad():
            lower, _ = self._bounded.compute_bounds(
                x=(self._input(instances),), C=self._matrix(rows), method=self.method, bound_upper=False
            )
        return self._array(lower) - rows.offsets

    def _input(self, instances: Sequence[Instance]) -> Any:
        """Returns the input sets as auto_LiRPA takes them."""
        first = instances[0]
        shape = (len(instances), *self._module.input_shape)
        lower, upper = (
            self._torch.from_numpy(np.stack(arrays)).reshape(shape).to(self._target, self._dtype)
            for arrays in ([item.lower for item in instances], [item.upper for item in instances])
        )
        perturbation = self._library.PerturbationLpNorm
        if first.norm == "linf":
            return self._library.BoundedTensor((lower + upper) / 2, perturbation(norm=np.inf, x_L=lower, x_U=upper))
        assert first.eps is not None
        # The ball is not cut with the box: bounds of the larger set hold for the smaller.
        centers = np.stack([item.center for item in instances if item.center is not None])
        center = self._torch.from_numpy(centers).reshape(shape).to(self._target, self._dtype)
        return self._library.BoundedTensor(center, perturbation(norm=2, eps=first.eps * (1 + 1e-6)))

    def _matrix(self, rows: SpecificationRows) -> torch.Tensor:
        return self._torch.from_numpy(rows.matrix).to(self._target, self._dtype)

    def _array(self, tensor: torch.Tensor) -> _Float64:
        array: _Float64 = tensor.detach().double().cpu().numpy()
        return array

    def _unstable(self, images: int) -> npt.NDArray[np.int64]:
        counts = np.zeros(images, dtype=np.int64)
        for relu in self._bounded.relus:
            before = relu.inputs[0]
            crossing = (before.lower < 0) & (before.upper > 0)
            counts += crossing.flatten(1).sum(1).cpu().numpy()
        return counts

    def _margins(self, instances: list[Instance], rows: SpecificationRows) -> _Float64:
        """Returns for each image how far above 0 a bound must be."""
        centers = np.stack([(item.lower + item.upper) / 2 for item in instances])
        with self._torch.no_grad():
            points = self._torch.from_numpy(centers).reshape(-1, *self._module.input_shape)
            outputs = self._array(self._module(points.to(self._target)))
        sizes = np.einsum("nrk,nk->nr", np.abs(rows.matrix), np.abs(outputs)) + np.abs(rows.offsets)
        relative = max(float(self.settings["tolerance"]), 16 * self.rounding)
        margins: _Float64 = relative * np.maximum(1.0, sizes.max(axis=1, initial=0.0))
        return margins

    def _verdict(
        self, bounds: tuple[float, ...], margin: float, proved: bool, unstable: int, seconds: float
    ) -> Verdict:
        times = Times(bound_s=seconds)
        common: dict[str, Any] = {"times": times, "unstable": unstable, "device": self._label}
        if not all(math.isfinite(bound) for bound in bounds):
            return Verdict(Status.UNKNOWN, "a bound is infinite or not a number", **common)
        lowest = min(bounds, default=0.0)
        if bounds and lowest > margin and not proved:
            detail = f"lowest bound {lowest:.3g} is within what rounding may have raised it by, in float64, too"
            return Verdict(Status.UNKNOWN, detail, bounds=bounds, **common)
        if bounds and lowest > margin:
            return Verdict(Status.UNSAT, bounds=bounds, stage="incomplete", **common)
        if lowest > 0:
            detail = f"lowest bound {lowest:.3g} is within float32 tolerance ({margin:.3g}) of 0"
        else:
            detail = what_is_open(bounds, margin)
        return Verdict(Status.UNKNOWN, detail, bounds=bounds, **common)
