"""Where a network is run before a proof of it counts.

The centre of the box, its two end corners, random corners and points; where at most 64 inputs vary, the corner towards
which each row of the property falls (by differences along each input); and where at most 8 vary, and runs are cheap,
points along each of them and along the diagonal, since what is switched on in a narrow part of the box alone is mostly
missed by the others.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from prunecert.onnx.io import external_files
from prunecert.verifiers.base import FloatArray, Instance
from prunecert.verifiers.formats import counterexample

Array = npt.NDArray[np.float64]

#: Random corners and random points, each.
_DRAWN = 4
#: Inputs that may vary for the falling corners to be looked for: the network is run twice for each.
_FEW = 64
#: Rows whose falling corners are tried.
_ROWS = 16
#: Inputs that may vary for lines to be walked along, points of a line, and bytes of the network times all their points.
_AXES, _STEPS, _BYTES = 8, 64, 8_000_000


def points_of(instance: Instance, run: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Returns distinct points of the input set, those first at which most is to be expected.

    Args:
        instance: The question.
        run: The network in onnxruntime, [n, *shape] to [n, outputs].

    Returns:
        Float32 points [n, *shape], at least one; of a ball that holds no float32 number one beside it.
    """
    rng = np.random.default_rng(0)
    low, high = instance.lower.astype(np.float64), instance.upper.astype(np.float64)
    if instance.norm == "l2":
        assert instance.center is not None
        center = np.clip(instance.center.astype(np.float64), low, high)
    else:
        center = 0.5 * low + 0.5 * high
    shares = rng.random((2 * _DRAWN, *low.shape))
    shares[::2] = np.round(shares[::2])
    drawn = low + shares * (high - low)
    candidates = [center, *_falling(instance, center, run), *drawn, low, high, *_lines(instance, center)]
    inside = [_inside(instance, point).astype(np.float32) for point in candidates]
    rounded = [counterexample.representable(point, instance.onnx, instance.lower, instance.upper) for point in inside]
    # Of a ball, the point nearest to its centre may be all there is, and outside by rounding: to be measured at only.
    distinct = {point.tobytes(): point for point in rounded if instance.contains(point)} or {b"": rounded[0]}
    return np.stack(list(distinct.values()))


def _inside(instance: Instance, point: Array) -> Array:
    """Pulls a point of the box into the ball, where the input set is one, and off its surface: it is rounded yet."""
    if instance.norm != "l2" or instance.center is None or instance.eps is None:
        return point
    step = point - instance.center.astype(np.float64)
    length = float(np.linalg.norm(step))
    pulled: Array = instance.center + step * min(1.0, instance.eps * (1 - 1e-6) / max(length, 1e-300))
    return pulled


def _falling(instance: Instance, center: Array, run: Callable[[FloatArray], FloatArray]) -> list[Array]:
    """Returns the corners of the box towards which rows of the property fall."""
    low, high = instance.lower.reshape(-1), instance.upper.reshape(-1)
    free = np.flatnonzero(low < high)
    if not 0 < len(free) <= _FEW:
        return []
    middle = np.clip(center.astype(np.float32).reshape(-1), low, high)
    ends = np.tile(middle, (2 * len(free), 1))
    ends[np.arange(len(free)), free] = low[free]
    ends[len(free) + np.arange(len(free)), free] = high[free]
    outputs = run(ends.reshape(-1, *instance.lower.shape)).astype(np.float64)
    rows = np.concatenate([a for a, _ in instance.spec.disjuncts] or [np.zeros((0, outputs.shape[1]))])[:_ROWS]
    corners = []
    with np.errstate(all="ignore"):
        rises = (outputs[len(free) :] - outputs[: len(free)]) @ rows.T
    for rise in rises.T:
        corner = middle.astype(np.float64)
        corner[free] = np.where(rise > 0, low[free], high[free])
        corners.append(corner.reshape(instance.lower.shape))
    return corners


def _lines(instance: Instance, center: Array) -> list[Array]:
    """Returns points along each input that varies, through the centre, and along the diagonal of all of them."""
    low, high = instance.lower.astype(np.float64), instance.upper.astype(np.float64)
    free = np.flatnonzero(low < high)
    if not 0 < len(free) <= _AXES:
        return []
    size = sum(file.stat().st_size for file in (instance.onnx, *external_files(instance.onnx)))
    steps = min(_STEPS, _BYTES // max(1, size) // (len(free) + 1))
    shares = (np.arange(steps) + 0.5) / max(1, steps)
    points = [low + share * (high - low) for share in shares] if len(free) > 1 else []
    for place in free:
        for share in shares:
            point = center.copy()
            point.flat[place] = low.flat[place] + share * (high.flat[place] - low.flat[place])
            points.append(point)
    return points
