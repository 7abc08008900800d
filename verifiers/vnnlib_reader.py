"""Reads VNN-LIB text into boxes and linear output constraints; `verifiers.vnnlib` is the public door to it.

The grammar of VNN-LIB 1.0 (Demarchi et al. 2023, "Supporting Standardization of Neural Networks Verification with
VNNLIB and CoCoNet") is read here: `declare-const` of X_i and Y_j, and assertions of any AND/OR over comparisons of
linear terms. The `vnnlib` package, from its version 1.0 on, reads VNN-LIB 2.0 only and refuses 1.0 files with a syntax
error, so it reads those that say `(vnnlib-version <2.0>)`; both end in the same expressions.

Numbers are read as VNN-COMP's own checker reads them: each decimal is rounded correctly to binary64, and all that
follows is exact or correctly rounded in binary64. No bound is rounded to float32 here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from verifiers.base import OutputSpec

DoubleArray: TypeAlias = npt.NDArray[np.float64]
#: A token, or a parenthesised list of expressions.
Expression: TypeAlias = "str | list[Expression]"
#: (index, is an upper bound, value): a bound of one input.
Bound: TypeAlias = tuple[int, bool, float]
#: ((index, coefficient), ...), right-hand side: sum of c * Y_index <= rhs.
Row: TypeAlias = tuple[tuple[tuple[int, float], ...], float]

#: More AND-clauses than this after multiplying out are refused: the largest VNN-COMP files have some thousands.
MAX_CLAUSES = 100_000

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_VARIABLE = re.compile(r"([XY])_(\d+)")
_TOKEN = re.compile(r"[()]|[^\s()]+")
_COMMENT = re.compile(r";[^\n]*")
_VERSION_2 = re.compile(r"\(\s*vnnlib-version\s*<\s*2")
# The two statements that make up nearly all of an image's file (6,144 bounds for CIFAR-10) are taken out at once:
# walking through them token by token costs ten times as much.
_DECLARATION = re.compile(r"\(declare-(?:const|fun) ([XY])_(\d+) (?:\(\) )?Real\)")
_BOUND = re.compile(r"\(assert \((<=|>=) X_(\d+) ([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\)\)")


class UnsupportedPropertyError(UserError):
    """A well-formed property that is no union of boxes with linear output constraints: status `unsupported`."""


@dataclass
class Clause:
    """An AND of input bounds and linear output constraints."""

    bounds: list[Bound] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def merged(self, other: Clause) -> Clause:
        """Returns the AND of both."""
        return Clause(self.bounds + other.bounds, self.rows + other.rows)


@dataclass(frozen=True, eq=False)
class Parsed:
    """A file's boxes, each with its unsafe outputs.

    Args:
        inputs: Number of input variables.
        outputs: Number of output variables.
        cases: (lower, upper, unsafe outputs); corners are float64 of shape [inputs], finite, lower <= upper.
        version: VNN-LIB version of the text.
    """

    inputs: int
    outputs: int
    cases: tuple[tuple[DoubleArray, DoubleArray, OutputSpec], ...]
    version: str


def parse(text: str, name: str) -> Parsed:
    """Parses VNN-LIB 1.0 or 2.0 text.

    Args:
        text: The file's text.
        name: What to call the file in messages.

    Raises:
        UserError: The text isn't VNN-LIB, or its input set is empty.
        UnsupportedPropertyError: It is, but no union of boxes with linear output constraints.
    """
    text = _COMMENT.sub("", text)
    if _VERSION_2.search(text):
        return _assemble(name, "2.0", *_statements_2(text, name))
    return _assemble(name, "1.0", *_statements_1(text, name))


def _statements_1(text: str, name: str) -> tuple[int, int, list[tuple[str, str, str]], list[Expression]]:
    """Splits VNN-LIB 1.0 text into declared counts, plain input bounds (operator, index, value), other assertions."""
    declared: dict[str, set[int]] = {"X": set(), "Y": set()}
    for variable, index in _DECLARATION.findall(text):
        declared[variable].add(int(index))
    bounds = _BOUND.findall(text)
    rest = _BOUND.sub(" ", _DECLARATION.sub(" ", text))
    assertions: list[Expression] = []
    for statement in _expressions(rest, name):
        match statement:
            case ["assert", formula]:
                assertions.append(formula)
            case ["declare-const", str(variable), "Real"] | ["declare-fun", str(variable), [], "Real"] if (
                match := _VARIABLE.fullmatch(variable)
            ):
                declared[match[1]].add(int(match[2]))
            case _:
                raise UserError(
                    f"{name} is no VNN-LIB file: the statement {_shown(statement)} is not understood; allowed are "
                    "(declare-const X_i Real), (declare-const Y_j Real) and (assert ...)."
                )
    for variable, indices in declared.items():
        if not indices or max(indices) != len(indices) - 1:
            raise UserError(
                f"{name} declares {len(indices)} variables {variable}_i, "
                f"{'the highest ' + variable + '_' + str(max(indices)) if indices else 'none'}; VNN-LIB wants "
                f"{variable}_0, {variable}_1, ... without a gap, and at least one."
            )
    return len(declared["X"]), len(declared["Y"]), bounds, assertions


def _statements_2(text: str, name: str) -> tuple[int, int, list[tuple[str, str, str]], list[Expression]]:
    """The same for VNN-LIB 2.0, through the `vnnlib` package: one network with one input and one output."""
    import vnnlib

    try:
        query = vnnlib.parse_query_string(text)
    except vnnlib.VNNLibException as error:
        raise UserError(f"{name} is no VNN-LIB 2.0 file: {' '.join(str(error).split())}") from None
    networks = query.networks
    if len(networks) != 1 or len(networks[0].inputs) != 1 or len(networks[0].outputs) != 1 or networks[0].hidden:
        raise UnsupportedPropertyError(
            f"{name} speaks of several networks, inputs, outputs or of hidden nodes; allowed is one network with one "
            "input and one output."
        )
    inputs, outputs = (math.prod(definition.shape) for definition in (networks[0].inputs[0], networks[0].outputs[0]))
    return inputs, outputs, [], [_expression_2(assertion.expr, name) for assertion in query.assertions]


def _expression_2(node: Any, name: str) -> Expression:
    """Writes a node of the `vnnlib` package's tree as an expression of VNN-LIB 1.0."""
    import vnnlib

    operators = {
        vnnlib.And: "and", vnnlib.Or: "or", vnnlib.LessEqual: "<=", vnnlib.GreaterEqual: ">=", vnnlib.Equal: "=",
        vnnlib.LessThan: "<", vnnlib.GreaterThan: ">", vnnlib.NotEqual: "!=", vnnlib.Plus: "+", vnnlib.Minus: "-",
        vnnlib.Multiply: "*", vnnlib.Negate: "-",
    }  # fmt: skip
    if isinstance(node, vnnlib.Var):
        letter = "X" if node.kind == vnnlib.SymbolKind.Input else "Y"
        return f"{letter}_{int(np.ravel_multi_index(node.indices, node.shape)) if node.shape else 0}"
    if isinstance(node, vnnlib.Literal):
        return str(node.lexeme)
    if type(node) not in operators:
        raise UnsupportedPropertyError(f"{name} has an expression {node} that is not understood.")
    children = (node.expr,) if isinstance(node, vnnlib.Negate) else node.children()
    return [operators[type(node)], *(_expression_2(child, name) for child in children)]


def _expressions(text: str, name: str) -> list[Expression]:
    """Reads all parenthesised expressions of a text."""
    stack: list[list[Expression]] = [[]]
    for word in _TOKEN.findall(text):
        if word == "(":
            stack.append([])
        elif word != ")":
            stack[-1].append(word)
        elif len(stack) > 1:
            closed = stack.pop()
            stack[-1].append(closed)
        else:
            raise UserError(f"{name} is no VNN-LIB file: it closes a parenthesis that was never opened.")
    if len(stack) > 1:
        raise UserError(f"{name} is no VNN-LIB file, or was cut off: {len(stack) - 1} parentheses are not closed.")
    return stack[0]


def _shown(expression: Expression) -> str:
    """Writes an expression for a message, shortened."""
    text = expression if isinstance(expression, str) else f"({' '.join(_shown(part) for part in expression[:8])})"
    return text if len(text) <= 80 else text[:77] + "..."


def _number(token: str, name: str) -> float | None:
    """Returns a token's value, None if it's no number."""
    if not _NUMBER.fullmatch(token):
        return None
    value = float(token)
    if not math.isfinite(value):
        raise UserError(f"{name} has the number {token}, which is too large for binary64.")
    return value


def _linear(expression: Expression, name: str) -> tuple[dict[str, Fraction], Fraction]:
    """Returns an expression's coefficients by variable, and its constant."""
    if isinstance(expression, str):
        value = _number(expression, name)
        if value is not None:
            return {}, Fraction(value)
        if not _VARIABLE.fullmatch(expression):
            raise UserError(f"{name} is no VNN-LIB file: {_shown(expression)!r} is neither a number nor X_i nor Y_j.")
        return {expression: Fraction(1)}, Fraction(0)
    match expression:
        case ["+" | "-" | "*" as operator, first, *others]:
            pass
        case _:
            raise UnsupportedPropertyError(
                f"{name} has the term {_shown(expression)}; allowed are sums, differences and products by constants."
            )
    coefficients, constant = _linear(first, name)
    if operator == "-" and not others:
        return {v: -c for v, c in coefficients.items()}, -constant
    for other in others:
        added, shift = _linear(other, name)
        if operator == "*":
            if coefficients and added:
                raise UnsupportedPropertyError(
                    f"{name} multiplies variables in {_shown(expression)}; allowed are linear constraints."
                )
            scale = constant if added else shift
            terms, offset = (added, shift) if added else (coefficients, constant)
            coefficients, constant = {v: c * scale for v, c in terms.items()}, offset * scale
        else:
            sign = 1 if operator == "+" else -1
            coefficients = {
                v: coefficients.get(v, Fraction(0)) + sign * added.get(v, Fraction(0))
                for v in {**coefficients, **added}
            }
            constant += sign * shift
    return coefficients, constant


def _comparison(lower: Expression, upper: Expression, name: str) -> Clause:
    """Translates lower <= upper into one input bound or one output constraint."""
    left, left_constant = _linear(lower, name)
    right, right_constant = _linear(upper, name)
    difference = {v: left.get(v, Fraction(0)) - right.get(v, Fraction(0)) for v in {**left, **right}}
    coefficients = {v: c for v, c in difference.items() if c}
    constant = right_constant - left_constant
    shown = f"(<= {_shown(lower)} {_shown(upper)})"
    letters = {v[0] for v in coefficients}
    if letters == {"Y"}:
        terms = tuple((int(v[2:]), float(c)) for v, c in coefficients.items())
        return Clause(rows=[(terms, float(constant))])
    if letters == {"X"} and len(coefficients) == 1:
        ((variable, scale),) = coefficients.items()
        return Clause(bounds=[(int(variable[2:]), scale > 0, float(constant / scale))])
    raise UnsupportedPropertyError(
        f"{name} has the constraint {shown}, "
        + (
            "which mixes inputs and outputs"
            if letters == {"X", "Y"}
            else "which ties several inputs together"
            if letters
            else "which has no variable"
        )
        + "; allowed are bounds of single inputs and linear constraints on outputs."
    )


def _clauses(formula: Expression, name: str) -> list[Clause]:
    """Returns a formula's disjunctive normal form."""
    match formula:
        case ["<=", lower, upper] | [">=", upper, lower]:
            return [_comparison(lower, upper, name)]
        case ["=" | "==", left, right]:
            return [_comparison(left, right, name).merged(_comparison(right, left, name))]
        case ["or", *parts] if parts:
            return list(chain.from_iterable(_clauses(part, name) for part in parts))
        case ["and", *parts] if parts:
            return _conjunction((_clauses(part, name) for part in parts), name)
        case ["<" | ">" | "!=" | "not" | "=>" | "xor" | "ite" as operator, *_]:
            raise UnsupportedPropertyError(
                f"{name} uses {operator!r} in {_shown(formula)}; allowed are and, or, <=, >= and =."
            )
        case _:
            raise UserError(
                f"{name} is no VNN-LIB file: the formula {_shown(formula)} is not understood; allowed are and, or, "
                "<=, >= and = over X_i, Y_j and numbers."
            )


def _conjunction(parts: Iterable[list[Clause]], name: str) -> list[Clause]:
    """Multiplies disjunctive normal forms out."""
    product = [Clause()]
    for alternatives in parts:
        if len(product) * len(alternatives) > MAX_CLAUSES:
            raise UnsupportedPropertyError(
                f"{name} has over {MAX_CLAUSES} clauses once its ANDs and ORs are multiplied out; split the file."
            )
        product = [clause.merged(other) for clause in product for other in alternatives]
    return product


def _assemble(
    name: str, version: str, inputs: int, outputs: int, plain: list[tuple[str, str, str]], formulas: list[Expression]
) -> Parsed:
    """Makes boxes and constraint matrices of what was read."""
    lower, upper = np.full(inputs, -np.inf), np.full(inputs, np.inf)
    if plain:
        indices = np.array([int(index) for _, index, _ in plain])
        values = np.array([float(value) for _, _, value in plain])
        is_upper = np.array([operator == "<=" for operator, _, _ in plain])
        _check_index("X", int(indices.max()), inputs, name)
        np.maximum.at(lower, indices[~is_upper], values[~is_upper])
        np.minimum.at(upper, indices[is_upper], values[is_upper])
    # Assertions with one clause go first, so that multiplying out touches them once.
    forms = sorted((_clauses(formula, name) for formula in formulas), key=len)
    cases: dict[bytes, tuple[DoubleArray, DoubleArray, list[tuple[DoubleArray, DoubleArray]]]] = {}
    nonempty = False
    for clause in _conjunction(forms, name):
        low, high = _tightened(lower, upper, clause.bounds, name)
        if not np.all(low <= high):
            continue
        nonempty = True
        unbounded = ~(np.isfinite(low) & np.isfinite(high))
        if unbounded.any():
            raise UnsupportedPropertyError(
                f"{name} leaves X_{int(np.argmax(unbounded))} without a finite lower or upper bound; allowed are boxes."
            )
        if not clause.rows:
            raise UnsupportedPropertyError(
                f"{name} has a case without any constraint on the outputs, so that every input would be a "
                "counterexample; allowed are cases with at least one."
            )
        a, b = np.zeros((len(clause.rows), outputs)), np.zeros(len(clause.rows))
        for i, (terms, rhs) in enumerate(clause.rows):
            b[i] = rhs
            for j, coefficient in terms:
                _check_index("Y", j, outputs, name)
                a[i, j] = coefficient
        if not np.all(np.isfinite(a)) or not np.all(np.isfinite(b)):
            raise UserError(f"{name} has a number in an output constraint that is too large for binary64.")
        cases.setdefault(low.tobytes() + high.tobytes(), (low, high, []))[2].append((a, b))
    if not nonempty:
        raise UserError(f"{name} asserts an empty input set (a lower bound above its upper bound in every case).")
    return Parsed(
        inputs, outputs, tuple((low, high, OutputSpec(tuple(pairs))) for low, high, pairs in cases.values()), version
    )


def _tightened(
    lower: DoubleArray, upper: DoubleArray, bounds: list[Bound], name: str
) -> tuple[DoubleArray, DoubleArray]:
    """Intersects the common box with a clause's bounds."""
    if not bounds:
        return lower, upper
    lower, upper = lower.copy(), upper.copy()
    for index, is_upper, value in bounds:
        _check_index("X", index, len(lower), name)
        if is_upper:
            upper[index] = min(upper[index], value)
        else:
            lower[index] = max(lower[index], value)
    return lower, upper


def _check_index(letter: str, index: int, count: int, name: str) -> None:
    if index >= count:
        raise UserError(
            f"{name} uses {letter}_{index}, which it does not declare; declared are {letter}_0 to {letter}_{count - 1}."
        )
