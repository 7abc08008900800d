"""No `unsat` that rounding made: what a verdict speaks of, and what is asked of a proof before it counts.

Two functions bear a network's name. One is that of the file's float32 weights in real arithmetic, f. The other is what
onnxruntime computes in float32 on the CPU, F, whose every sum is rounded; it is the one that is deployed, and by which
a counterexample is judged. A `sat` speaks of F alone: F was run at the point. A verifier proves something of f (or,
without rounding outwards, of its own float32 bounds of f). An `unsat` here speaks of both: f is safe on the whole input
set, and F is as far as can be said of a function without structure: it is safe wherever it was tried, and f stays away
from the unsafe set by more than rounding moves an output. The first is a proof as good as its verifier. The second is
no proof but a measurement with a margin, since proofs for F (Higham's γ_n times the product of the layers' |W|) allow
for errors thousands of times what ever occurs and would leave hardly a network verified.

What is asked of an `unsat` (`guard`):

* F is run at points of the box (`verifiers.rounding.points`). If one is a
  counterexample, or an output there is infinite or not a number, it is no `unsat`: `unknown` if f is safe at that point
  or within rounding of it, and otherwise `error`: the verifier's arithmetic, or its reading of the file, is wrong.
* The verifier's bound of each disjunct must exceed the *allowance*, and so must the disjunct's value at each of these
  points; what is below is `unknown`. A complete verifier would find a bound of just over 0 for many safe instances, so
  it is told the allowance beforehand (`Instance.allowance`) and proves that much more (`Instance.tightened`).

The allowance (`measure`) of a disjunct with rows a is the largest |a| · s over its rows, s being, for each output, the
larger of 16 times the root mean square of F - f, f computed in float64 (`verifiers.rounding.float64_network`), and 4
times that of f's change when each sum in it gets a random error of the size of float32's (Monte Carlo arithmetic). Both
are taken at points of the instance's own box, so that the magnitudes that are rounded, and cancel, are its own. The
first sees what this runtime really does, constants that the graph sums included; the second sees rounding that happens
not to show at these points (numbers that are exact by chance), and other orders of summation. Everything is drawn from
fixed seeds.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.verifiers.base import FloatArray, Instance, Status, Verdict, Verifier
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.rounding import float64_network
from prunecert.verifiers.rounding.blas_threads import one_thread
from prunecert.verifiers.rounding.points import points_of

Array = npt.NDArray[np.float64]

#: Of the measured difference, and of the change under random errors.
_MEASURED, _RANDOM = 16.0, 4.0
#: Points in float64: at least, at most, and weights that are walked over together; the time would not be the same
#: twice, and a verdict must be.
_LEAST, _MOST, _WEIGHTS = 3, 6, 1_000_000
#: Relative allowance of networks that round to whole numbers, of which float64 is no measure; what these roundings do
#: is charged by who proves something of them.
_BLIND = 1e-5
#: Of what a verifier without certificates is asked to prove.
_FOREIGN = 4.0
#: Of the evaluation of the property itself, in float64.
_SPEC = 2.0**-48


@dataclass(frozen=True, eq=False)
class Measure:
    """What was measured over one input set.

    Args:
        points: Float32 [n, *shape] in the input set, n > 0.
        outputs: onnxruntime's there, [n, outputs].
        steady: Whether it gives the same at one point twice; dropout in training mode doesn't.
        exact: The float64 ones of the first of them, [m, outputs]; m is 0 where the network can't be run so, and then
            nothing counts as proved, but of networks that round to whole numbers.
        allowance: For each disjunct, how far rounding may move the largest of its rows.
        seconds: It took.
    """

    points: FloatArray
    outputs: FloatArray
    steady: bool
    exact: Array
    allowance: tuple[float, ...]
    seconds: float


def measure(instance: Instance) -> Measure:
    """Runs an instance's network at points of its input set; asked again about the last ones, it answers from memory.

    Args:
        instance: The question.

    Raises:
        UserError: The network can't be run by onnxruntime.
    """
    return _measure(_Key(instance))


class _Key:
    """An instance as a key: equal for equal questions, whatever their limits and names."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._question = instance.question()

    def __hash__(self) -> int:
        return hash(self._question)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._question == other._question


@functools.lru_cache(maxsize=128)
def _measure(key: _Key) -> Measure:
    begin = time.perf_counter()
    instance = key.instance

    def run(points: FloatArray) -> FloatArray:
        with np.errstate(all="ignore"):
            return counterexample.outputs(instance.onnx, points, instance.classes)

    points = points_of(instance, run)
    outputs = run(points)
    exact, random, whole = _float64(instance, points)
    steady = np.array_equal(run(points[:1])[0], outputs[0], equal_nan=True)
    allowance = _allowance(instance, outputs, exact, random, whole=whole)
    return Measure(points, outputs, steady, exact, allowance, time.perf_counter() - begin)


def _float64(instance: Instance, points: FloatArray) -> tuple[Array, Array, bool]:
    """Returns float64 outputs of the first points, others with random errors, and whether it rounds to whole numbers.

    Where it does, or can't be run so, there are none.
    """
    none = np.zeros((0, 0))
    rng = np.random.default_rng(0)
    try:
        network = float64_network.read(instance.onnx, instance.onnx_sha256, instance.classes)
        count = int(np.clip(_WEIGHTS // max(network.weights, 1), _LEAST, _MOST))
        with one_thread():
            exact = [network.run(point) for point in points[:count]]
            # A point, or a sliver, gives too few to tell a deviation from.
            random = [network.run(points[index % len(exact)], rng) for index in range(_LEAST + 1)]
    except (float64_network.UnreadableError, MemoryError) as error:
        return none, none, isinstance(error, float64_network.WholeNumbersError)
    if len({len(row) for row in exact}) != 1:
        return none, none, False
    count = len(exact)
    base = np.stack([exact[index % count] for index in range(len(random))])
    with np.errstate(all="ignore"):
        return np.stack(exact), np.stack(random) - base, False


def _allowance(
    instance: Instance, outputs: FloatArray, exact: Array, random: Array, *, whole: bool
) -> tuple[float, ...]:
    allowances = []
    with np.errstate(all="ignore"):
        values = outputs.astype(np.float64)
        size = np.abs(values).max(axis=0, initial=0.0)
        if exact.shape[1:] == values.shape[1:] and len(exact):
            gaps = values[: len(exact)] - exact
            size = np.maximum(size, np.abs(exact).max(axis=0))
            spread = np.maximum(_MEASURED * _rms(gaps), _RANDOM * _rms(random))
        elif whole:
            spread = _BLIND * np.maximum(size, 1.0)
        else:
            # Nobody knows what rounding does.
            return (np.inf,) * len(instance.spec.disjuncts)
        for a, b in instance.spec.disjuncts:
            each = np.abs(a) @ spread + _SPEC * (np.abs(a) @ size + np.abs(b))
            most = float(each.max(initial=0.0))
            allowances.append(most if np.isfinite(most) else np.inf)
    return tuple(allowances)


def _rms(values: Array) -> Array:
    # Scaled, so that squares of what float32 can hold neither overflow nor vanish.
    scale = np.abs(values).max(axis=0, initial=0.0)
    scale = np.where(scale > 0, scale, 1.0)
    result: Array = scale * np.sqrt(((values / scale) ** 2).mean(axis=0))
    return result


def import_runtimes() -> None:
    """Imports what `measure` runs networks in, which takes a tenth of a second, for whoever has to wait anyhow."""
    importlib.import_module("onnx.reference")
    importlib.import_module("onnxruntime")


def prepare(verifier: type[Verifier], instance: Instance) -> Instance:
    """Gives an instance its allowance, for a verifier that proves that much more.

    Args:
        verifier: Who is asked.
        instance: The question.

    Returns:
        The instance, as it was where the verifier doesn't ask for it or nothing could be measured: then the verdict
        says what is wrong with the network.
    """
    if not verifier.tightens or instance.allowance:
        return instance
    try:
        allowance = measure(instance).allowance
    except UserError:
        return instance
    # No bound exceeds an infinite one, so nothing is proved; an engine is given a number to compute with.
    return replace(instance, allowance=tuple(min(value, 1e30) for value in allowance))


def search(instance: Instance, ask: Callable[[Instance], Verdict]) -> Verdict:
    """Asks a complete verifier without certificates: for a proof with room for rounding, then for a counterexample.

    Its own bounds are float32 ones of unknown error, so it is given the property with `_FOREIGN` times the allowance.
    A counterexample to that which is none to the property itself is no answer; then the property is asked for as it is,
    and only a counterexample to it counts.

    Args:
        instance: The question.
        ask: Called once or twice; with a time limit that is what is left.
    """
    begin = time.perf_counter()
    verdict = ask(replace(instance, spec=instance.tightened(_FOREIGN), allowance=()))
    if not instance.allowance or verdict.status is not Status.SAT or _confirmed(instance, verdict.witness):
        return verdict
    left = instance.timeout - (time.perf_counter() - begin)
    if left > 0:
        again = ask(replace(instance, timeout=left, allowance=()))
        if again.status is Status.SAT or not (again.status.decided or again.status is Status.UNKNOWN):
            return again
    detail = "a point within float32 rounding of the unsafe set was found, and no counterexample"
    return replace(verdict, status=Status.UNKNOWN, detail=detail, witness=None, stage=None)


def _confirmed(instance: Instance, witness: FloatArray | None) -> bool:
    if witness is None:
        # That it is missing is for the parent to say.
        return True
    point = np.clip(witness.reshape(instance.lower.shape), instance.lower, instance.upper)
    return instance.spec.violated_by(counterexample.outputs(instance.onnx, point[None], instance.classes)[0])


def guard(verifier: type[Verifier], instance: Instance, verdict: Verdict) -> Verdict:
    """Lets an `unsat` pass, or makes `unknown` or `error` of it, see the module; other verdicts pass.

    Args:
        verifier: Who answered.
        instance: The question.
        verdict: The answer.
    """
    if verdict.status is not Status.UNSAT:
        return verdict
    try:
        measured = measure(instance)
    except UserError as error:
        return _refused(verdict, Status.ERROR, f"answered unsat, but the network can't be run: {error}", verifier)
    if not measured.steady:
        detail = "the network is no function of its input: onnxruntime gives two outputs for one point"
        return _refused(verdict, Status.UNSUPPORTED, detail, verifier)
    infinite = ~np.isfinite(measured.outputs).all(axis=1)
    if infinite.any():
        why = "proved in real arithmetic, but outputs of onnxruntime's float32 are infinite or not a number"
        return _refused(verdict, Status.UNKNOWN, f"{why} at {_describe(measured.points[infinite][0])}", verifier)
    for index, output in enumerate(measured.outputs):
        if instance.spec.violated_by(output) and instance.contains(measured.points[index]):
            return _broken(verifier, instance, verdict, measured, index)
    for disjunct, allowed in enumerate(measured.allowance):
        # NumPy's minimum is no number where one of them is none, and what is no number is refused, too.
        sampled = float(np.min([_depth(instance, disjunct, row) for row in (*measured.outputs, *measured.exact)]))
        if np.isinf(allowed) and not len(measured.exact):
            detail = "the network can't be run in float64 here, so that what float32 rounding does isn't known"
            return _refused(verdict, Status.UNKNOWN, detail, verifier)
        if not sampled > allowed:
            why = f"the property holds at a point of the box by {sampled:.3g} only"
        elif verdict.bounds is not None and not verdict.bounds[disjunct] > allowed:
            why = f"the proof's margin is {verdict.bounds[disjunct]:.3g}"
        else:
            continue
        detail = f"{why}, which float32 rounding in onnxruntime may undo (allowance {allowed:.3g})"
        return _refused(verdict, Status.UNKNOWN, detail, verifier)
    return verdict


def unconfirmed(instance: Instance, witness: FloatArray) -> bool:
    """Whether a point of the box that is no counterexample in onnxruntime is one within rounding.

    Args:
        instance: The question.
        witness: Float32 point of the input set.
    """
    try:
        allowance = instance.allowance or measure(instance).allowance
        (output,) = counterexample.outputs(instance.onnx, witness[None], instance.classes)
    except UserError:
        return False
    if not np.isfinite(output).all():
        # Real arithmetic does not overflow.
        return True
    return any(_depth(instance, k, output) <= allowed for k, allowed in enumerate(allowance))


def _broken(verifier: type[Verifier], instance: Instance, verdict: Verdict, measured: Measure, index: int) -> Verdict:
    """Says what a counterexample means for a proof."""
    output = measured.outputs[index]
    if index < len(measured.exact):
        true: npt.NDArray[np.floating] = measured.exact[index]
    else:
        try:
            true = float64_network.read(instance.onnx, instance.onnx_sha256, instance.classes).run(
                measured.points[index]
            )
        except float64_network.UnreadableError:
            true = output
    where = _describe(measured.points[index])
    allowed = max(measured.allowance)
    shown = ", ".join(f"{value:.9g}" for value in output[:10])
    if all(_depth(instance, k, true) > -most for k, most in enumerate(measured.allowance)):
        why = "answered unsat, but onnxruntime's float32 breaks it at a point of the box, by no more than rounding"
        detail = f"{why} (allowance {allowed:.3g}): {where} gives {shown}"
        return _refused(verdict, Status.UNKNOWN, detail, verifier)
    why = "answered unsat, but a point of the box is a counterexample: its bounds or its reading of the file are wrong"
    return _refused(verdict, Status.ERROR, f"{why}; {where} gives {shown}", verifier)


def _depth(instance: Instance, disjunct: int, output: npt.NDArray[np.floating]) -> float:
    """Returns the largest row of a disjunct: at or below 0 it holds, and the output is unsafe."""
    a, b = instance.spec.disjuncts[disjunct]
    with np.errstate(all="ignore"):
        return float((a @ output.astype(np.float64) - b).max(initial=-np.inf))


def _describe(point: FloatArray) -> str:
    flat = point.reshape(-1)
    more = ", …" if flat.size > 8 else ""
    return f"x = ({', '.join(f'{value:.9g}' for value in flat[:8])}{more})"


def _refused(verdict: Verdict, status: Status, detail: str, verifier: type[Verifier]) -> Verdict:
    bounds = verdict.bounds if status is Status.UNKNOWN else None
    return replace(verdict, status=status, detail=f"{verifier.name}: {detail}", stage=None, bounds=bounds)
