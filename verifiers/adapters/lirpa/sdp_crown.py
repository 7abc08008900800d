"""SDP-CROWN over l2 balls (Chiu et al., ICML 2025) in torch's float64, on hidden bounds that auto_LiRPA has computed.

auto_LiRPA's CROWN adds up what each ReLU loses by itself. Here rows are walked back through the network once more, and
what the ReLUs of a layer lose is bounded together (`least`), over the corners and the ball in which its values lie. The
corners are auto_LiRPA's, improved by intervals, and by walks of the neurons that these leave unstable. The ball's
radius follows from norms of the matrices that lead to the layer: with slopes s, 1 where a ReLU is active, 0 where it is
inactive and 1/2 where it is unstable, relu(z) - relu(ẑ) = s (z - ẑ) + e, where |e| is at most half of |z - ẑ|, and so

    |z - ẑ|  <=  |A| ρ + sum over layers before: |B| |e|,

A and B being the coefficients of the input and of those layers' unstable ReLUs. Also, the input set is cut with what
pixels can be. It is independent of `verifiers.sparse.balls`, which does the same with other code; only the norm of a
matrix is taken from there.

Slopes of the unstable ReLUs, CROWN's at first, may be optimised (α-CROWN, Xu et al. 2021): bounds are concave in them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from prunecert.verifiers.adapters.lirpa.ball_walk import HUGE, BallWalk, Corners, CutBall, Sums, lengths
from prunecert.verifiers.adapters.lirpa.least import least
from prunecert.verifiers.formats.onnx_torch import OnnxModule
from prunecert.verifiers.sparse.balls.spectral import norm

#: Numbers that a walk's rows may have at one tensor: 32 MiB.
_ROOM = 2**22
#: Unstable neurons of a layer from which no ball is looked for: their matrix would be too large.
_MOST = 6_000
#: Steps of slopes: the first one's length, and its decay.
_RATE, _DECAY = 0.1, 0.96


@dataclass(eq=False)
class Hidden:
    """What is known of a ReLU's input over the ball, flat; `SdpCrown` finds it.

    Args:
        low: Its values' lower bounds.
        high: And upper ones.
        center: A point near its value at the centre of the ball, between these.
        drift: How far it is from that value at most.
        free: Unstable neurons.
        radius: How far their values may be from there in the l2 norm; infinite: nothing is known.
    """

    low: torch.Tensor
    high: torch.Tensor
    center: torch.Tensor
    drift: torch.Tensor
    free: torch.Tensor
    radius: float = math.inf


class SdpCrown:
    """One network over one ball.

    Args:
        module: The network, see `ball_walk.takes`.
        ball: The input set.
        corners: Bounds of the inputs of ReLUs that hold in real arithmetic, by name, [1, ...] each, in the network's
            order.
        deadline: `time.monotonic` after which no further rows are walked.

    Raises:
        TimeoutError: Then.

    Attributes:
        hidden: What is known of each ReLU's input, by name.
    """

    def __init__(
        self, module: OnnxModule, ball: CutBall, corners: Mapping[str, Corners], deadline: float = math.inf
    ) -> None:
        self._walk, self._deadline = BallWalk(module, ball, corners), deadline
        self._widest = max(own.size.numel() for own in self._walk.values.values())
        self.hidden: dict[str, Hidden] = {}
        with torch.no_grad():
            for name, own in corners.items():
                self._find(name, own)

    @property
    def unstable(self) -> int:
        """Unstable ReLUs."""
        return sum(len(own.free) for own in self.hidden.values())

    def bound(self, rows: torch.Tensor, offsets: torch.Tensor, steps: int = 0) -> torch.Tensor:
        """Bounds rows of the outputs from below, A y - b.

        Args:
            rows: A, [rows, outputs], exact.
            offsets: b, [rows].
            steps: By which the ReLUs' slopes are optimised for the rows that are not above 0.

        Returns:
            Lower bounds in real arithmetic, [rows].
        """
        name = self._walk.module.output_name
        chosen: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            best = self._lower(name, rows, -offsets, chosen).lower(self._walk.terms)
        slopes = {key: own.clone().requires_grad_() for key, own in chosen.items()}
        if not slopes or not steps:
            return best
        optimiser = torch.optim.Adam(list(slopes.values()), lr=_RATE, betas=(0.9, 0.99))
        decay = torch.optim.lr_scheduler.ExponentialLR(optimiser, _DECAY)
        for step in range(steps + 1):
            if bool((best > 0).all()) or time.monotonic() > self._deadline:
                break
            with torch.enable_grad():
                sums = self._lower(name, rows, -offsets, dict(slopes))
                best = torch.fmax(best, sums.lower(self._walk.terms))
                if step < steps:
                    optimiser.zero_grad()
                    (-sums.value[best <= 0].sum()).backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
                    decay.step()
            with torch.no_grad():
                for own in slopes.values():
                    own.clamp_(0.0, 1.0)
        return best

    def _find(self, name: str, corners: Corners) -> None:
        """Finds out what there is to be known of a ReLU's input."""
        inside = self._walk.interval(name, {key: (item.low, item.high) for key, item in self.hidden.items()})
        low = torch.maximum(corners[0], inside[0]).reshape(-1)
        high = torch.minimum(corners[1], inside[1]).reshape(-1)
        values = self._walk.values[name]
        center = torch.clamp(values.center.reshape(-1), low, high)
        own = Hidden(low, high, center, values.drift.reshape(-1), _unstable(low, high))
        for neurons in torch.split(own.free, max(1, _ROOM // (2 * self._widest))):
            self._hurry()
            rows = self._picked(name, neurons)
            zeros = torch.zeros(2 * len(rows), dtype=torch.float64, device=low.device)
            lower = self._lower(name, torch.cat([rows, -rows]), zeros, {}).lower(self._walk.terms)
            low[neurons] = torch.fmax(low[neurons], lower[: len(neurons)])
            high[neurons] = torch.fmin(high[neurons], -lower[len(neurons) :])
        own.free = _unstable(low, high)
        if 0 < len(own.free) <= _MOST:
            self._hurry()
            self._enclose(name, own)
            own.free = _unstable(low, high)
        # Between its corners it is no farther from any value.
        own.center = torch.clamp(own.center, low, high)
        self.hidden[name] = own

    def _hurry(self) -> None:
        if time.monotonic() > self._deadline:
            raise TimeoutError

    def _picked(self, name: str, neurons: torch.Tensor) -> torch.Tensor:
        """Returns rows of the identity, [rows, *shape of the tensor]."""
        shape = self._walk.values[name].size.shape[1:]
        rows = torch.zeros((len(neurons), shape.numel()), dtype=torch.float64, device=neurons.device)
        rows[torch.arange(len(neurons), device=neurons.device), neurons] = 1.0
        return rows.reshape(-1, *shape)

    def _enclose(self, name: str, own: Hidden) -> None:
        """Finds the ball of a ReLU input's unstable neurons, and takes over what it says of each."""
        free = own.free
        parts: dict[str, list[torch.Tensor]] = {}

        def halved(node: str, through: torch.Tensor, _: Sums) -> torch.Tensor:
            hidden = self.hidden[node]
            slope = (hidden.high > 0).double()
            if len(hidden.free):
                slope[hidden.free] = 0.5
                parts.setdefault(node, []).append(through[:, hidden.free])
            return through * slope

        ends, errors = [], []
        for neurons in torch.split(free, max(1, _ROOM // self._widest)):
            self._hurry()
            rows = self._picked(name, neurons)
            sums = Sums.of(torch.zeros(len(rows), dtype=torch.float64, device=free.device))
            end = self._walk.back(name, rows, sums, halved)
            ends += [] if end is None else [end]
            # Both the value and that at the centre are off by what the walk charges.
            error = 1.01 * (own.drift[neurons] + 2.0 * sums.error)
            errors.append(torch.where(sums.largest < HUGE, error, torch.full_like(error, torch.inf)))
        radius, error = 0.0, torch.cat(errors)
        apart = torch.zeros_like(error)
        pairs = [(matrices, _unlinear(self.hidden[node])) for node, matrices in parts.items()]
        for matrices, length in [*pairs, (ends, self._walk.ball.radius)]:
            if matrices:
                matrix = torch.cat(matrices)
                radius += norm(matrix.cpu().numpy()) * length
                apart = apart + lengths(matrix) * length
        apart = (apart + error) * (1 + 1e-12)
        radius = (radius + float(error.norm())) * (1 + 1e-12)
        center = self._walk.values[name].center.reshape(-1)[free]
        far = torch.full_like(apart, torch.inf)
        own.low[free] = torch.fmax(own.low[free], torch.nextafter(center - apart, -far))
        own.high[free] = torch.fmin(own.high[free], torch.nextafter(center + apart, far))
        own.radius = radius if math.isfinite(radius) else math.inf

    def _lower(self, name: str, rows: torch.Tensor, constant: torch.Tensor, slopes: dict[str, torch.Tensor]) -> Sums:
        """Bounds rows of a tensor from below over the ball.

        Args:
            name: The tensor; what is before it is known.
            rows: Coefficients, [rows, ...].
            constant: Added to each, [rows].
            slopes: Of the unstable ReLUs, [rows, unstable] each; where one is missing, CROWN's are added.
        """

        def relaxed(node: str, through: torch.Tensor, sums: Sums) -> torch.Tensor:
            hidden = self.hidden[node]
            free = hidden.free
            active = (hidden.high > 0).double()
            active[free] = 0.0
            coefficients = through * active
            if not len(free):
                return coefficients
            c, low, high = through[:, free], hidden.low[free], hidden.high[free]
            if node not in slopes:
                slopes[node] = torch.where(c < 0, high / (high - low), (high > -low).double()).detach()
            part = slopes[node] * c
            sums.add(*least(c, -part, low, high, hidden.center[free], hidden.radius))
            return coefficients.index_copy(1, free, part)

        sums = Sums.of(constant)
        end = self._walk.back(name, rows, sums, relaxed)
        if end is not None:
            ball = self._walk.ball
            sums.add(*least(None, end, ball.low, ball.high, ball.center, ball.radius))
        return sums


def _unstable(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return torch.nonzero((low < 0) & (high > 0)).squeeze(1)


def _unlinear(hidden: Hidden) -> float:
    """Bounds |relu(z) - relu(ẑ) - (z - ẑ) / 2| over unstable neurons, ẑ being their value at the ball's centre."""
    low, high, center = hidden.low[hidden.free], hidden.high[hidden.free], hidden.center[hidden.free]
    corners = float(torch.maximum(high - center, center - low).norm()) * (1 + 1e-12)
    return (0.5 * min(hidden.radius, corners) + float(hidden.drift[hidden.free].norm())) * (1 + 1e-12)
