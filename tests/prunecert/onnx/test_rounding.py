"""What the normal form says of its rounding holds: against rational arithmetic, on networks made to cancel."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.onnx.nodes import Node
from prunecert.onnx.normal import Normalised, UnsupportedNetworkError, normal_nodes
from prunecert.onnx.normalise import normalise
from prunecert.onnx.rounding import KEY, Rounding, forget, keeps_digits, note, noted, one_minus, summed
from tests.prunecert.onnx.graphs import N, build

Vector = list[Fraction]
Rng = np.random.Generator
#: Magnitudes whose sums and products lose digits in float32, in float64, or in neither.
_SIZES = (2.0**-60, 2.0**-30, 1 / 3, 1.0, 3.0, 2.0**40)


def fractions(array: Any) -> Vector:
    return [Fraction(float(number)) for number in np.asarray(array).reshape(-1)]


def numbers(rng: Rng, count: int) -> Any:
    """Float32 numbers, some of them each other's negatives."""
    values = rng.choice(_SIZES, count) * rng.choice([-1.0, 1.0], count)
    return np.where(rng.random(count) < 0.3, values * rng.random(count), values).astype(np.float32)


class Chain:
    """A graph written at random, and its value at one point in rational numbers."""

    def __init__(self, rng: Rng, image: bool) -> None:
        self.rng, self.size = rng, int(rng.integers(1, 4))
        self.shape = (1, self.size, 1, 1) if image else (1, self.size)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {}
        self.point = numbers(rng, self.size)
        self.values: dict[str, Vector] = {"x": fractions(self.point)}

    def add(self, operator: str, inputs: Sequence[str], value: Vector, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(N(operator, list(inputs), [name], **attributes))
        self.values[name] = value
        return name

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def step(self, name: str) -> str:
        """Does something to a value."""
        value = self.values[name]
        row = numbers(self.rng, self.size)
        other = str(self.rng.choice(list(self.values)))
        binary: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
            "Add": lambda a, b: a + b,
            "Sub": lambda a, b: a - b,
            "Mul": lambda a, b: a * b,
            "Div": lambda a, b: a / b,
        }
        match int(self.rng.integers(6)):
            case 0 | 1:
                operator = str(self.rng.choice(list(binary)))
                result = [binary[operator](a, b) for a, b in zip(value, fractions(row), strict=True)]
                return self.add(operator, [name, self.constant(row.reshape(self.shape))], result)
            case 2 | 3:
                operator = str(self.rng.choice(["Add", "Sub"]))
                result = [binary[operator](a, b) for a, b in zip(value, self.values[other], strict=True)]
                return self.add(operator, [name, other], result)
            case 4:
                slope = np.float32(self.rng.choice([0.1, 0.5, 2.0**-40]))
                leaky = [a if a > 0 else a * Fraction(float(slope)) for a in value]
                return self.add("LeakyRelu", [name], leaky, alpha=float(slope))
            case _:
                return self.add("Relu", [name], [max(a, Fraction(0)) for a in value])

    def finish(self, name: str) -> Vector:
        """Ends the graph in two copies of a value, one after the other, and sometimes a linear layer."""
        value = self.values[name]
        flat = self.add("Flatten", [name], value)
        joined = self.add("Concat", [flat, flat], value * 2, axis=1)
        if self.rng.random() < 0.5:
            weight, bias = numbers(self.rng, 4 * self.size).reshape(2, -1), numbers(self.rng, 2)
            exact = [
                sum((Fraction(float(w)) * v for w, v in zip(row, value * 2, strict=True)), Fraction(0))
                for row in weight
            ]
            exact = [total + Fraction(float(shift)) for total, shift in zip(exact, bias, strict=True)]
            joined = self.add("Gemm", [joined, self.constant(weight), self.constant(bias)], exact, transB=1)
        self.nodes[-1].output[0] = "y"
        return self.values[joined]


def enclosed(nodes: Sequence[Node], point: Any) -> list[tuple[Fraction, Fraction]]:
    """Returns the lowest and highest outputs of all networks that the nodes may stand for, at one point."""
    values = [[(number, number) for number in fractions(point)]]
    tiny = Fraction(2) ** -149
    for node in nodes[1:]:
        first = values[node.inputs[0]]
        if node.operator == "Relu":
            values.append([(max(low, Fraction(0)), max(high, Fraction(0))) for low, high in first])
        elif node.operator == "Reshape":
            values.append(first)
        elif node.operator == "Add":
            values.append([(a + c, b + d) for (a, b), (c, d) in zip(first, values[node.inputs[1]], strict=True)])
        else:
            weight, bias = node.layer()
            errors = np.zeros(len(bias)) if node.bias_error is None else node.bias_error
            rows = []
            for out, (shift, error) in enumerate(zip(fractions(bias), fractions(errors), strict=True)):
                low, high = shift - error, shift + error
                share = weight.shape[1]
                start = out // (len(bias) // node.groups) * share
                for factor, (a, b) in zip(fractions(weight[out]), first[start : start + share], strict=True):
                    off = abs(factor) * Fraction(node.loose) + (tiny if node.loose and factor else 0)
                    ends = [w * v for w in (factor - off, factor + off) for v in (a, b)]
                    low, high = low + min(ends), high + max(ends)
                rows.append((low, high))
            values.append(rows)
    return values[-1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), image=st.booleans(), steps=st.integers(1, 7))
def test_what_the_file_computes_is_within_what_the_normal_form_says(seed: int, image: bool, steps: int) -> None:
    chain = Chain(np.random.default_rng(seed), image)
    name = "x"
    for _ in range(steps):
        name = chain.step(name)
    exact = chain.finish(name)
    with contextlib.suppress(UnsupportedNetworkError):
        # Products of many large numbers overflow float32, and are refused.
        form = normalise(build(chain.nodes, chain.constants, chain.shape))
        check(form, chain.point, exact)


def check(form: Normalised, point: Any, exact: Vector) -> None:
    """Asserts that exact outputs are among those of the networks that a normal form may stand for."""
    assert form.input_order is None
    nodes = normal_nodes(form.model)
    assert nodes is not None
    for value, (low, high) in zip(exact, enclosed(nodes, point), strict=True):
        assert low <= value <= high


def test_digits_that_cancel_stay_apart() -> None:
    """x + 2**-60 x - x is 2**-60 x, and x / 3 - fl(1/3) x is not 0."""
    small, third = np.full((1, 1), 2.0**-60, np.float32), np.full((1, 1), 1 / 3, np.float32)
    first = [N("Mul", ["x", "s"], ["a"]), N("Add", ["x", "a"], ["b"]), N("Sub", ["b", "x"], ["y"])]
    second = [N("Div", ["x", "t"], ["a"]), N("Mul", ["x", "f"], ["b"]), N("Sub", ["a", "b"], ["y"])]
    three = np.full((1, 1), 3, np.float32)
    lost = Fraction(1, 3) - Fraction(float(np.float32(1 / 3)))
    for nodes, constants, exact in (
        (first, {"s": small}, Fraction(2) ** -60),
        (second, {"t": three, "f": third}, lost),
    ):
        check(normalise(build(nodes, constants, (1, 1))), [1.0], [exact])


def test_a_layer_of_zeros_behind_a_constant_is_read() -> None:
    """Its bias is off by next to nothing, which is a number with a long exponent."""
    constants = {"c": np.full((1, 2), 0.1, np.float32), "w": np.zeros((3, 2), np.float32)}
    nodes = [N("Add", ["x", "c"], ["h"]), N("Gemm", ["h", "w"], ["y"], transB=1)]
    check(normalise(build(nodes, constants, (1, 2))), [1.0, 2.0], [Fraction(0)] * 3)


@pytest.mark.parametrize("operands", [1, 2])
def test_sums_of_constants_are_charged(operands: int) -> None:
    """Each weight is a sum of products of the file's numbers, which onnxruntime would round."""
    first, second = np.array([[1, 1e-8, 1e-9], [3, 1e8, 0.1]], np.float32), np.array([[0.1], [0.3], [0.7]], np.float32)
    constants, equation = ({"w": first}, "ij,jk->i") if operands == 1 else ({"w": first, "v": second}, "ij,jk,kl->il")
    nodes = [N("Einsum", ["x", *constants], ["y"], equation=equation)]
    factors = fractions(second) if operands == 2 else [Fraction(1)] * 3
    exact = sum(
        (
            Fraction(float(x)) * sum((a * b for a, b in zip(fractions(row), factors, strict=True)), Fraction(0))
            for x, row in zip((1.0, -0.5), first, strict=True)
        ),
        Fraction(0),
    )
    check(normalise(build(nodes, constants, (1, 2))), [1.0, -0.5], [exact])
    constants["w"] = np.array([[1, 1e8, -1e8], [3, 1, 2]], np.float32)
    with pytest.raises(UnsupportedNetworkError, match="adds up constants that cancel"):
        normalise(build(nodes, constants, (1, 2)))


def test_numbers_of_the_file_are_said_to_be_its_own() -> None:
    nodes = [N("MatMul", ["x", "w"], ["h"]), N("Add", ["h", "b"], ["r"]), N("Neg", ["r"], ["y"])]
    form = normalise(
        build(nodes, {"w": numbers(np.random.default_rng(0), 6).reshape(2, 3), "b": np.ones(3, np.float32)}, (1, 2))
    )
    assert form.changed
    assert noted(form.model) == {}
    read = normal_nodes(form.model)
    assert read is not None
    assert all(node.loose == 0 and node.bias_error is None for node in read)


def test_what_is_written_is_read_and_forgotten() -> None:
    model = build([N("Relu", ["x"], ["y"])])
    assert noted(model) is None
    roundings = {3: Rounding(True, False, 0.0), 12: Rounding(False, True, 1e-12)}
    note(model, roundings)
    assert noted(model) == roundings
    forget(model)
    assert noted(model) is None


@pytest.mark.parametrize(
    "text",
    [
        "1 0 0",
        "1 0 0 1e-3",
        "1 0 0 inf",
        "1 0 0 -0x1p+0",
        "x",
        "1 2 0 0x1.0p+0",
        "1 0 0 0x1.0p+5000",
        "1 0 0 0xfffffffffp+999",
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    model = build([N("Relu", ["x"], ["y"])])
    model.metadata_props.add(key=KEY, value=text)
    with pytest.raises(UserError, match="isn't understood"):
        noted(model)


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=5))
def test_one_minus_says_whether_digits_are_lost(values: list[float]) -> None:
    differences, loose = one_minus(np.array(values))
    exact = [1 - Fraction(value) for value in values]
    assert (loose == 0) == (fractions(differences) == exact)


@given(st.lists(st.sampled_from([0.0, 0.5, -1.0, 2.0**-100, 3.0, 1 / 3]), min_size=1, max_size=4))
def test_powers_of_two_keep_digits(factors: list[float]) -> None:
    third = np.float64(1 / 3)
    exact = all(Fraction(float(third * f)) == Fraction(float(third)) * Fraction(f) for f in factors)
    assert keeps_digits(np.array(factors)) <= exact


def test_sums_lose_digits_only_to_cancellation() -> None:
    one = np.array([1.0])
    assert summed(one, one, 1, 0.25) == 0.25
    assert summed(0 * one, 2 * one, 2, 0.0) is not None
    assert summed(0 * one, 2 * one, 2, 2.0**-53) is None
    assert summed(one, 3 * one, 3, 0.0) is None
    assert (summed(3 * one, 3 * one, 3, 0.0) or 0) > 0
