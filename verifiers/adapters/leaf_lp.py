"""The end of a branch: a domain on which every ReLU has a fixed phase, so that one linear program decides it.

Works on auto_LiRPA's graph, upstream's or a reduced copy. Both complete verifiers that use it would otherwise need
Gurobi here, whose free licence stops at 2,000 variables, or give up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linprog

FloatMatrix = npt.NDArray[np.float64]

#: The rows come from float32 arithmetic, so each may be off by about 1e-6 of its scale. Phase constraints are loosened
#: by this much, and the optimum must pass it, before a leaf counts as proved.
SLACK = 1e-5
#: Seconds for one linear program; beyond it the leaf stays open.
SECONDS = 20.0


class OpenLeafError(ArithmeticError):
    """Neither a proof nor a counterexample within `SLACK`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"a domain with every ReLU fixed could not be decided: {reason}")


def decide(
    net: Any,
    lower: Mapping[str, Any],
    upper: Mapping[str, Any],
    splits: Mapping[str, Any],
    box: tuple[Any, Any],
    rows: Any,
    limits: Any,
) -> Any:
    """Decides whether a fully split domain holds an unsafe point.

    Args:
        net: auto_LiRPA's `BoundedModule`, with ReLU as its only activation.
        lower: Lower bounds of pre-activations by node name, each of the shape of the node.
        upper: Upper bounds, likewise; no neuron may have ``lower < 0 < upper``.
        splits: By node name: indices of split neurons and signs (+1: active), first and second of a sequence.
        box: Corners of the input box, shape [1, *input].
        rows: The unsafe set's A, shape [m, outputs].
        limits: Its b, shape [m].

    Returns:
        None if the domain holds no point with A y <= b, else such a point, confirmed by the network: [1, *input].

    Raises:
        OpenLeafError: Neither can be shown.
    """
    low, high = box
    gradients, offset, signs = _affine(net, lower, upper, splits, (low + high) / 2, rows)
    count = len(signs)
    thresholds = limits.detach().double().cpu().numpy().reshape(-1)
    # Minimise t subject to  A y - b <= t  and, for each split neuron z,  -sign * z <= SLACK.
    turn = np.concatenate([-signs, np.ones(len(thresholds))])[:, None]
    A = np.hstack([gradients * turn, np.concatenate([np.zeros(count), -np.ones(len(thresholds))])[:, None]])
    b = np.concatenate([signs * offset[:count] + SLACK, thresholds - offset[count:]])
    cost = np.zeros(A.shape[1])
    cost[-1] = 1.0
    bounds = [*zip(low.flatten().tolist(), high.flatten().tolist(), strict=True), (None, None)]
    solution = linprog(cost, A_ub=A, b_ub=b, bounds=bounds, options={"time_limit": SECONDS})
    # 2: infeasible. Everything else that is no optimum proves nothing.
    if solution.status == 2 or (solution.status == 0 and solution.fun > SLACK):
        return None
    if solution.status != 0:
        raise OpenLeafError(f"the linear program ended with status {solution.status} ({solution.message})")
    point = torch.tensor(solution.x[:-1], dtype=low.dtype, device=low.device).reshape(low.shape)
    point = torch.minimum(torch.maximum(point, low), high)
    with torch.no_grad():
        output = _forward(net, point, lambda _name, value: value.relu())
    if bool((rows @ output.reshape(-1) <= limits.reshape(-1)).all()):
        return point
    raise OpenLeafError(f"its optimum {solution.fun:.1e} lies within {SLACK} of the threshold")


def _forward(net: Any, x: Any, relu: Any) -> Any:
    """Evaluates the graph without touching the state that upstream keeps on it."""
    values: dict[str, Any] = {net.input_name[0]: x}

    def value(node: Any) -> Any:
        if node.name not in values:
            inputs = [value(before) for before in node.inputs]
            if type(node).__name__ == "BoundRelu":
                values[node.name] = relu(node.inputs[0].name, inputs[0])
            else:
                values[node.name] = node.forward(*inputs)
        return values[node.name]

    return value(net[net.output_name[0]])


def _affine(
    net: Any, lower: Mapping[str, Any], upper: Mapping[str, Any], splits: Mapping[str, Any], at: Any, rows: Any
) -> tuple[FloatMatrix, FloatMatrix, FloatMatrix]:
    """Linearises the network with fixed phases.

    Returns:
        Rows and offsets such that ``rows @ x + offset`` are the split pre-activations, then A y; and the sign of each
        split pre-activation.
    """
    inputs: dict[str, Any] = {}

    def fixed(name: str, value: Any) -> Any:
        inputs[name] = value
        if name not in lower:
            raise OpenLeafError(f"the bounds of {name} are missing")
        active = (lower[name] >= 0).reshape(value.shape)
        if not bool((active | (upper[name] <= 0).reshape(value.shape)).all()):
            raise OpenLeafError(f"a ReLU after {name} is not fixed")
        return value * active.to(value.dtype)

    with torch.enable_grad():
        x = at.detach().clone().requires_grad_()
        output = _forward(net, x, fixed).reshape(-1)
        scalars, signs = [], []
        for name, (places, phases, *_) in splits.items():
            for place, phase in zip(torch.as_tensor(places).tolist(), torch.as_tensor(phases).tolist(), strict=True):
                scalars.append(inputs[name].reshape(-1)[int(place)])
                signs.append(float(phase))
        scalars += list(rows.to(output) @ output)
        gradients = [torch.autograd.grad(value, x, retain_graph=True)[0].flatten() for value in scalars]
    matrix = torch.stack(gradients).double().cpu().numpy()
    values = torch.stack([value.detach() for value in scalars]).double().cpu().numpy()
    return matrix, values - matrix @ at.detach().double().cpu().numpy().reshape(-1), np.array(signs, dtype=np.float64)
