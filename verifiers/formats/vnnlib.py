"""Write and read VNN-LIB 1.0 properties, and counterexample files in VNN-COMP's format.

**Float32 and decimals.** What is written here are the float32 corners themselves, as decimals that read back as exactly
these floats, in float32 and in binary64: nothing is rounded, and what we write, we read unchanged. A file from
elsewhere may have bounds that no float32 has (``0.1``). For those the lower corner is rounded down and the upper corner
up, so that a proof over the float32 box covers the file's. A counterexample has to lie in the file's own box, compared
in binary64 without tolerance (`Case.contains`): one in the sliver between the two boxes proves nothing about the file.
"""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.files import write_bytes
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec
from prunecert.verifiers.formats.textfile import read_bytes, read_text
from prunecert.verifiers.formats.vnnlib_reader import DoubleArray, UnsupportedPropertyError, parse

__all__ = [
    "Case",
    "Property",
    "UnsupportedPropertyError",
    "counterexample_text",
    "has_plain_rows",
    "parse_property",
    "read_bytes",
    "read_counterexample",
    "read_property",
    "read_text",
    "to_vnnlib",
    "write",
    "write_counterexample",
    "write_text",
]


@dataclass(frozen=True, eq=False)
class Case:
    """One box and the outputs that are unsafe over it.

    Args:
        lower: Lower corner as the file has it, float64, shape [inputs], in the network's C order.
        upper: Upper corner, likewise.
        spec: The unsafe outputs.
        inner: Corners of the box in which a counterexample has to lie, where it is another one: the file's bounds are
            strict, or no numbers of binary64 (``(/ 1 3)``), so that `lower` and `upper` are rounded outwards.
    """

    lower: DoubleArray
    upper: DoubleArray
    spec: OutputSpec
    inner: tuple[DoubleArray, DoubleArray] | None = None

    @property
    def any_output(self) -> bool:
        """Whether every output is unsafe, so that any point of the box is a counterexample."""
        return any(not a.any() and bool(np.all(b >= 0)) for a, b in self.spec.disjuncts)

    def outer(self) -> tuple[FloatArray, FloatArray]:
        """Returns the smallest float32 box round this one, for proofs; shape [inputs]."""
        return _round(self.lower, up=False), _round(self.upper, up=True)

    def contains(self, point: npt.ArrayLike) -> bool:
        """Whether a point lies in the box as the file has it, compared in float64 without tolerance."""
        x = np.asarray(point, dtype=np.float64).reshape(-1)
        lower, upper = self.inner or (self.lower, self.upper)
        return x.shape == lower.shape and bool(np.all((lower <= x) & (x <= upper)))

    def nearest(self, point: FloatArray) -> FloatArray | None:
        """Returns the float32 point of the box nearest to `point`, in its shape; None if the box has none."""
        lower, upper = self.inner or (self.lower, self.upper)
        low, high = _round(lower, up=True), _round(upper, up=False)
        if not np.all(low <= high):
            return None
        return np.clip(point.reshape(-1), low, high).reshape(point.shape)


@dataclass(frozen=True, eq=False)
class Property:
    """What a VNN-LIB file asserts: unsafe if any case is.

    Args:
        path: The file, or None if it was read from text.
        inputs: Number of inputs.
        outputs: Number of outputs.
        cases: Boxes with their unsafe outputs; the property holds only if it holds for all. None if nothing can meet
            what the file asserts, so that the property holds for any network.
        version: VNN-LIB version, ``"1.0"`` or ``"2.0"``.
        empty: Why there is no case; empty if there is one.
    """

    path: Path | None
    inputs: int
    outputs: int
    cases: tuple[Case, ...]
    version: str
    empty: str = ""

    def instances(
        self, onnx: Path, onnx_sha256: str, shape: Sequence[int], timeout: float, name: str = ""
    ) -> list[Instance]:
        """Makes an instance of each case, over the float32 box round it.

        Args:
            onnx: Path of the network.
            onnx_sha256: Its hash.
            shape: The network's input shape without the batch axis.
            timeout: Wall-clock limit of each in seconds.
            name: What a person calls the property.

        Raises:
            UserError: The shape has another number of inputs than the property.
        """
        shape = tuple(shape)
        if int(np.prod(shape)) != self.inputs:
            raise UserError(
                f"{name or self.path}: the property has {self.inputs} inputs but the network {onnx.name} has "
                f"{int(np.prod(shape))} (shape {shape}); they must be equal."
            )
        questions = []
        for i, case in enumerate(self.cases):
            lower, upper = case.outer()
            label = case.spec.label
            questions.append(
                Instance(
                    onnx=onnx,
                    onnx_sha256=onnx_sha256,
                    lower=lower.reshape(shape),
                    upper=upper.reshape(shape),
                    # Same set; the label's own order of rows is what `Verdict.bounds` promises.
                    spec=case.spec if label is None else _in_order(case.spec, label),
                    timeout=timeout,
                    name=name if len(self.cases) == 1 else f"{name} case {i + 1} of {len(self.cases)}",
                    label=label,
                    classes=self.outputs,
                    vnnlib=self.path,
                )
            )
        return questions


def _round(values: DoubleArray, *, up: bool) -> FloatArray:
    """Rounds to float32 in the direction asked for."""
    # A value beyond float32 becomes inf here, which the caller must see, not a warning.
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    wrong = rounded < values if up else rounded > values
    rounded[wrong] = np.nextafter(rounded[wrong], np.float32(np.inf if up else -np.inf))
    if not np.all(np.isfinite(rounded)):
        raise UnsupportedPropertyError(
            f"X_{int(np.argmin(np.isfinite(rounded)))} has a bound beyond float32 ({values[~np.isfinite(rounded)][0]})."
        )
    return rounded


def _in_order(spec: OutputSpec, label: int) -> OutputSpec:
    """Returns the unsafe outputs of a robustness property in the order of the classes."""
    classes = len(spec.disjuncts) + 1
    order = sorted(range(classes - 1), key=lambda k: int(spec.disjuncts[k][0][0].argmin()))
    return replace(OutputSpec.robustness(label, classes), limits=tuple(spec.limits[k] for k in order if spec.limits))


def has_plain_rows(spec: OutputSpec) -> bool:
    """Whether all rows are ``y_i - y_j <= 0`` or ``±y_i <= b``.

    VNN-COMP's `read_vnnlib_simple` and the readers descended from it understand nothing else; some skip other lines
    without a word, so that an adapter must ask before it hands a file to one of them.
    """
    for a, b in spec.disjuncts:
        for row, rhs in zip(a, b, strict=True):
            values = sorted(row[row != 0.0].tolist())
            if not (values in ([-1.0], [1.0]) or (values == [-1.0, 1.0] and rhs == 0.0)):
                return False
    return True


def _decimal(value: float) -> str:
    """Writes a float as the shortest decimal, without exponent, that reads back as this very binary64 number."""
    text = repr(float(value))
    return text if "e" not in text else format(Decimal(text), "f")


def _row(row: DoubleArray, rhs: float, *, strict: bool) -> str:
    """Writes row @ Y <= rhs, or <, in the plainest form that says it."""
    below, above = ("<", ">") if strict else ("<=", ">=")
    terms = {int(j): float(row[j]) for j in np.flatnonzero(row)}
    plus = [j for j, c in terms.items() if c == 1.0]
    minus = [j for j, c in terms.items() if c == -1.0]
    if len(terms) == 2 and len(plus) == len(minus) == 1 and rhs == 0.0:
        return f"({above} Y_{minus[0]} Y_{plus[0]})"
    if len(terms) == 1 and plus:
        return f"({below} Y_{plus[0]} {_decimal(rhs)})"
    if len(terms) == 1 and minus:
        return f"({above} Y_{minus[0]} {_decimal(-rhs)})"
    summands = [f"(* {_decimal(c)} Y_{j})" for j, c in terms.items()]
    if not summands:
        raise UserError("A row of an output constraint is all zero; VNN-LIB has no way to write it.")
    return f"({below} {summands[0] if len(summands) == 1 else f'(+ {chr(32).join(summands)})'} {_decimal(rhs)})"


def to_vnnlib(instance: Instance) -> str:
    """Returns an instance's property as VNN-LIB 1.0 text: the box, and the unsafe outputs as one assertion.

    Robustness comes out as ``(assert (or (and (>= Y_j Y_label)) ...))``, the form that α,β-CROWN, NeuralSAT and
    Marabou read.

    Raises:
        UserError: The input set is an l2 ball, which VNN-LIB 1.0 can't state.
    """
    if instance.norm != "linf":
        raise UserError(
            f"Instance {instance.name}: an {instance.norm} ball can't be written as VNN-LIB 1.0; allowed is linf."
        )
    lines = [f"; {' '.join(instance.name.split()) or 'property'}", "; unsafe outputs (the negated property) over a box"]
    if instance.label is not None:
        lines.append(f"; label: {instance.label}")
    if instance.eps is not None:
        lines.append(f"; eps: {_decimal(instance.eps)}")
    lines += [f"(declare-const X_{i} Real)" for i in range(instance.lower.size)]
    lines += [f"(declare-const Y_{j} Real)" for j in range(instance.classes)]
    corners = zip(instance.lower.ravel().tolist(), instance.upper.ravel().tolist(), strict=True)
    for i, (low, high) in enumerate(corners):
        lines += [f"(assert (>= X_{i} {_decimal(low)}))", f"(assert (<= X_{i} {_decimal(high)}))"]
    disjuncts = []
    every = instance.spec.limits or tuple(b for _, b in instance.spec.disjuncts)
    for (a, b), limits in zip(instance.spec.disjuncts, every, strict=True):
        stricts = (limits < b).tolist()
        rows = [_row(row, rhs, strict=strict) for row, rhs, strict in zip(a, b.tolist(), stricts, strict=True)]
        disjuncts.append(f"    (and {' '.join(rows)})")
    return "\n".join([*lines, "(assert (or", *disjuncts, "))", ""])


def write(instance: Instance, path: Path) -> None:
    """Writes an instance's property to a file, gzipped if the name ends in ``.gz``."""
    write_text(path, to_vnnlib(instance))


def parse_property(text: str, name: str = "VNN-LIB text", path: Path | None = None) -> Property:
    """Parses VNN-LIB text; see `read_property` for errors.

    >>> text = '''
    ... (declare-const X_0 Real)
    ... (declare-const Y_0 Real)
    ... (declare-const Y_1 Real)
    ... (assert (>= X_0 -1.0))
    ... (assert (<= X_0 0.5))
    ... (assert (<= Y_0 Y_1))
    ... '''
    >>> (case,) = parse_property(text).cases
    >>> case.lower.tolist(), case.upper.tolist(), case.spec.violated_by([1.0, 2.0])
    ([-1.0], [0.5], True)
    """
    parsed = parse(text, name)
    cases = []
    for case in parsed.cases:
        same = np.array_equal(case.lower, case.inner_lower) and np.array_equal(case.upper, case.inner_upper)
        inner = None if same else (case.inner_lower, case.inner_upper)
        cases.append(Case(case.lower, case.upper, case.spec, inner))
    return Property(path, parsed.inputs, parsed.outputs, tuple(cases), parsed.version, parsed.empty)


def read_property(path: Path) -> Property:
    """Reads a ``.vnnlib`` or ``.vnnlib.gz`` file.

    Raises:
        UserError: The file is missing, cut off, too large, or no VNN-LIB.
        UnsupportedPropertyError: It is no union of boxes with linear output constraints.

    >>> from tempfile import TemporaryDirectory
    >>> box = np.zeros(1, dtype=np.float32), np.ones(1, dtype=np.float32)
    >>> question = Instance(Path("net.onnx"), "", *box, OutputSpec.robustness(0, 2), timeout=10.0, classes=2)
    >>> with TemporaryDirectory() as folder:
    ...     write(question, Path(folder, "question.vnnlib.gz"))
    ...     prop = read_property(Path(folder, "question.vnnlib.gz"))
    >>> prop.inputs, prop.outputs, prop.version, len(prop.cases)
    (1, 2, '1.0', 1)
    >>> prop.cases[0].upper.tolist(), prop.cases[0].spec.violated_by([1.0, 1.0])
    ([1.0], True)
    """
    return parse_property(read_text(path, "VNN-LIB"), str(path), path)


def counterexample_text(x: npt.ArrayLike, y: npt.ArrayLike) -> str:
    """Returns VNN-COMP's form of a counterexample.

    Args:
        x: The input, any shape; written flat in C order as decimals that read back as the same numbers.
        y: The output, likewise.
    """
    pairs = [
        f"({letter}_{i} {float(value)!r})"
        for letter, values in (("X", x), ("Y", y))
        for i, value in enumerate(np.asarray(values).ravel().tolist())
    ]
    return "(" + "\n".join(pairs) + ")\n"


def write_counterexample(path: Path, x: npt.ArrayLike, y: npt.ArrayLike) -> None:
    """Writes a counterexample file, gzipped if the name ends in ``.gz``."""
    write_text(path, counterexample_text(x, y))


_PAIR = re.compile(r"\(\s*([XY])_([0-9]+)\s+([^\s()]+)\s*\)")


def read_counterexample(path: Path) -> tuple[DoubleArray, DoubleArray]:
    """Reads a counterexample file.

    Returns:
        Input and output, float64, flat.

    Raises:
        UserError: The file is missing, cut off, or not in VNN-COMP's form.
    """
    text = read_text(path, "counterexample")
    values: dict[str, list[float]] = {"X": [], "Y": []}
    ordered = "".join(_PAIR.sub("", text).split()) == "()"
    for letter, index, value in _PAIR.findall(text):
        ordered = ordered and int(index) == len(values[letter])
        try:
            values[letter].append(float(value))
        except ValueError:
            ordered = False
    if not ordered or not values["X"]:
        raise UserError(f"{path} is no counterexample file; it must read ((X_0 value) ... (Y_0 value) ...) in order.")
    return np.array(values["X"]), np.array(values["Y"])


def write_text(path: Path, text: str) -> None:
    """Writes a text file, gzipped if the name ends in ``.gz``; the same text always gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode("utf-8")
    if path.suffix == ".gz":
        buffer = io.BytesIO()
        # No name and no time in the header: equal properties shall have equal hashes.
        with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as stream:
            stream.write(raw)
        raw = buffer.getvalue()
    write_bytes(path, raw)
