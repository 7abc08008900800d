"""IBP, CROWN-IBP, CROWN and α-CROWN through auto_LiRPA, many images in a batch.

IBP: Gowal et al. 2018. CROWN: Zhang et al. 2018, "Efficient Neural Network Robustness Certification with General
Activation Functions". CROWN-IBP: Zhang et al. 2020, section 3. α-CROWN: Xu et al. 2021, section 3.1. Over l2 balls,
CROWN and α-CROWN go on with SDP-CROWN (Chiu et al. 2025), see `sdp_crown`, where auto_LiRPA leaves an image open.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.adapters.hardware import free_memory
from prunecert.verifiers.adapters.lirpa.engine import TOLERANCE, Lirpa
from prunecert.verifiers.adapters.lirpa.rows import SpecificationRows
from prunecert.verifiers.base import Instance
from prunecert.verifiers.settings import Setting

if TYPE_CHECKING:
    import torch

_Float64 = npt.NDArray[np.float64]


class Ibp(Lirpa):
    """Interval bound propagation."""

    name = "ibp"
    method = "IBP"


class CrownIbp(Lirpa):
    """CROWN for the outputs over IBP's bounds of the hidden neurons."""

    name = "crown-ibp"
    method = "CROWN-IBP"


class Crown(Lirpa):
    """CROWN for the outputs and for every hidden neuron that IBP leaves unstable."""

    name = "crown"
    method = "CROWN"
    chunk = 10
    chunk_cpu = 2

    def _room(self, instances: list[Instance]) -> int:
        sizes = [math.prod(relu.inputs[0].output_shape[1:]) for relu in self._bounded.relus]
        # The largest coefficient matrix an image may need, four times: lower, upper and what is made of them.
        widest = max((4 * 4 * size * max(sizes[:i]) for i, size in enumerate(sizes) if i), default=1)
        return int(0.5 * free_memory(self.device) / widest)

    def _tighten(
        self,
        instances: list[Instance],
        rows: SpecificationRows,
        lower: _Float64,
        bounds: list[tuple[float, ...]],
        margins: _Float64,
        unproved: set[int],
    ) -> None:
        """Bounds l2 balls that are open by SDP-CROWN; each row's better bound counts."""
        from prunecert.verifiers.adapters.lirpa.ball_walk import takes
        from prunecert.verifiers.rounding.lirpa import Apart

        if instances[0].norm != "l2" or not takes(self._module):
            return
        still = [i for i, own in enumerate(bounds) if i in unproved or not min(own, default=0.0) > margins[i]]
        if not still:
            return
        certain = self._certain(instances, rows, lower, still, Apart.EVERYWHERE)
        for i, sure in zip(still, certain, strict=True):
            better = self._sdp_crown(instances[i])
            if better is None:
                continue
            count = len(better)
            raised = lower[i].copy()
            raised[:count] = np.fmax(raised[:count], better)
            sure[:count] = np.fmax(sure[:count], better)
            bounds[i] = tuple(map(max, bounds[i], rows.disjuncts(i, raised)))
            if min(rows.disjuncts(i, sure), default=0.0) > 0:
                unproved.discard(i)
            elif min(bounds[i], default=0.0) > margins[i]:
                unproved.add(i)

    def _sdp_crown(self, instance: Instance) -> _Float64 | None:
        """Returns rigorous bounds of an l2 ball's rows, [rows]; None where there are none, or time is over."""
        from prunecert.verifiers.adapters.lirpa import sdp_crown
        from prunecert.verifiers.adapters.lirpa.ball_walk import CutBall

        rows = SpecificationRows([instance])
        corners = self._corners(instance, rows)
        if corners is None:
            return None
        assert instance.center is not None
        assert instance.eps is not None
        center, low, high = (
            self._torch.from_numpy(item.astype(np.float64)).reshape(-1).to(self._target)
            for item in (instance.center, instance.lower, instance.upper)
        )
        matrix, offsets = (
            self._torch.from_numpy(item[0]).to(self._target, self._torch.float64)
            for item in (rows.matrix, rows.offsets)
        )
        try:
            ball = CutBall.of(center, float(instance.eps), low, high)
            deadline = min(self._deadline, time.monotonic() + instance.timeout)
            network = sdp_crown.SdpCrown(self._module, ball, corners, deadline)
            return self._array(network.bound(matrix, offsets, self._steps()))
        except TimeoutError:
            return None

    def _steps(self) -> int:
        """Returns how many steps slopes are optimised by."""
        return 0

    def _corners(
        self, instance: Instance, rows: SpecificationRows
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]] | None:
        """Returns bounds of ReLUs' inputs that hold in real arithmetic, by name, [1, ...]; None: nothing is known."""
        torch = self._torch
        self._use(torch.float64)
        try:
            Crown._bound(self, [instance], rows)
            computed = self._computed(rows.offsets.shape)
            if computed is None:
                return None
            widths = self._walk.widths([instance], computed, torch.float64)
        finally:
            self._use(torch.float32)
        corners = {}
        for result, key, arguments in self._module.steps:
            if result in computed.bounds and arguments[0] in widths:
                low, high = computed.bounds[result]
                # The sums below round.
                width = widths[arguments[0]] + 2.0**-50 * (low.abs() + high.abs())
                corners[arguments[0]] = low - width, high + width
            elif isinstance(self._module.layers[key], torch.nn.ReLU):
                return None
        fine = all(bool(end.isfinite().all()) for pair in corners.values() for end in pair)
        return corners if fine else None


class AlphaCrown(Crown):
    """CROWN, and then optimised slopes (α) for the disjuncts that it leaves open, over its hidden bounds."""

    name = "alpha-crown"
    # The best slopes are not the last ones, and have no nodes.
    keeps_coefficients = False
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "iterations": Setting(default=20, at_least=1, help="steps of the optimiser"),
        "tolerance": TOLERANCE,
    }

    def _steps(self) -> int:
        return int(self.settings["iterations"])

    def _options(self) -> dict[str, Any]:
        optimize = {"iteration": self.settings["iterations"], "keep_best": True}
        return {"verbosity": 0, "optimize_bound_args": optimize}

    def _bound(self, instances: list[Instance], rows: SpecificationRows) -> _Float64:
        lower = super()._bound(instances, rows)
        margins = self._margins(instances, rows)
        hidden = {
            relu.inputs[0].name: (relu.inputs[0].lower.detach(), relu.inputs[0].upper.detach())
            for relu in self._bounded.relus
        }
        before = [(node, node.lower, node.upper) for node in self._bounded.nodes()]
        still = {i: rows.open_rows(i, lower[i], float(margins[i])) for i in range(len(instances))}
        for index, open_rows in still.items():
            if len(open_rows):
                better = self._optimise(instances[index], rows, index, open_rows, hidden)
                lower[index, open_rows] = np.fmax(lower[index, open_rows], better)
        # Those of all images, from which rounding is bounded.
        for node, low, high in before:
            node.lower, node.upper = low, high
        return lower

    def _optimise(
        self,
        instance: Instance,
        rows: SpecificationRows,
        index: int,
        open_rows: npt.NDArray[np.int64],
        hidden: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    ) -> _Float64:
        """Returns optimised lower bounds of one image's open rows."""
        matrix = self._matrix(rows)[index : index + 1, open_rows]
        intervals = {name: (low[index : index + 1], high[index : index + 1]) for name, (low, high) in hidden.items()}
        lower, _ = self._bounded.compute_bounds(
            x=(self._input([instance]),), C=matrix, method="CROWN-Optimized", bound_upper=False, interm_bounds=intervals
        )
        better: _Float64 = self._array(lower)[0] - rows.offsets[index, open_rows]
        return better
