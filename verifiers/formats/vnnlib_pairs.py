"""VNN-LIB 2.0 queries over two networks on one input: read as queries over their merged file, and written.

    (vnnlib-version <2.0>)
    (declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [1,3]))
    (declare-network g (isomorphic-to f) (declare-input U float32 [1,2]) (declare-output V float32 [1,3]))
    (assert (and (== U[0,0] X[0,0]) (== U[0,1] X[0,1])))
    …

Both networks get the same input, so each of the second's inputs has to be equated with the first's, in an assertion of
its own or in a conjunction. In the merged file (`prunecert.onnx.merge`) the second's outputs follow the first's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.formats.vnnlib import parse_property
from prunecert.verifiers.formats.vnnlib_reader import REALS, UnsupportedPropertyError
from prunecert.verifiers.formats.vnnlib_text import Expression, expressions, keyword, plain, script, shown

_NETWORKS = re.compile(r"\(\s*declare-network[\s(]", re.ASCII | re.IGNORECASE)
_VERSION = re.compile(r"\(\s*vnnlib-version[^)]*\)", re.ASCII | re.IGNORECASE)
_INDICES = re.compile(r"\s*\[\s*((?:[0-9]+\s*(?:,\s*[0-9]+\s*)*)?)\]")
_INDEXED = re.compile(r"([^\[\]]+)\[([0-9,]*)\]")
#: Levels of parentheses within an assertion.
_DEEPEST = 400
_RELATIONS = ("isomorphic-to", "equal-to")


@dataclass(frozen=True)
class PairQuery:
    """A query over two networks.

    Args:
        text: The same as VNN-LIB 2.0 over the merged network, as `prunecert.verifiers.formats.vnnlib` reads it.
        equal: Whether the two are said to be one network.
    """

    text: str
    equal: bool


@dataclass(frozen=True)
class _Network:
    """A declaration: names of the input and the output, with their shapes."""

    name: str
    input: tuple[str, tuple[int, ...]]
    output: tuple[str, tuple[int, ...]]
    relation: tuple[str, str] | None


def speaks_of_two(text: str) -> bool:
    """Whether a property's text declares two networks.

    >>> speaks_of_two("(declare-network f (declare-input X Real [1]) (declare-output Y Real [1]))")
    False
    """
    return len(_NETWORKS.findall(plain(text, "The property"))) == 2


def read_pair(text: str, name: str) -> PairQuery:
    """Reads a query over two networks.

    Args:
        text: VNN-LIB 2.0.
        name: What to call it in messages.

    Raises:
        UnsupportedPropertyError: The networks aren't said to be alike, or get different inputs.
        UserError: It is no such query.
    """
    joined = _INDICES.sub(lambda match: f"[{re.sub(r'[^0-9,]', '', match[1])}] ", _VERSION.sub(" ", plain(text, name)))
    statements = list(script(expressions(joined, name), name))
    networks = [_declared(part, name) for part in statements if keyword(part) == "declare-network"]
    if len(networks) != 2:
        raise UnsupportedPropertyError(f"{name} declares {len(networks)} networks; a pair has two.")
    first, second = networks
    if first.relation is not None or second.relation is None or second.relation[1] != first.name:
        raise UnsupportedPropertyError(
            f"{name} doesn't say how its networks are related; allowed is ({' or '.join(_RELATIONS)} {first.name}) in "
            "the second."
        )
    if first.input[1] != second.input[1] or first.output[1] != second.output[1]:
        raise UserError(f"{name} declares two networks of different inputs or outputs to be alike.")
    words = [word for network in networks for word, _ in (network.input, network.output)]
    if len(set(words)) != len(words) or first.name == second.name:
        raise UserError(
            f"{name} declares {', '.join(map(shown, words))} in {shown(first.name)} and {shown(second.name)}; allowed "
            "are different names, so that it is known which network is meant."
        )
    size, outputs = math.prod(first.input[1]), math.prod(first.output[1])
    equated: set[int] = set()
    asserted: list[str] = []
    for statement in statements:
        if keyword(statement) == "declare-network":
            continue
        if keyword(statement) != "assert" or len(statement) != 2:
            raise UnsupportedPropertyError(
                f"{name} holds {shown(statement)}; over two networks only assertions are taken."
            )
        for formula in _conjuncts(statement[1]):
            same = _equated(formula, first, second)
            if same is None:
                asserted.append(f"(assert {_rewritten(formula, first, second, name)})")
            else:
                equated.add(same)
    if len(equated) != size:
        raise UnsupportedPropertyError(
            f"{name} equates {len(equated)} of {size} inputs of its networks; allowed are two networks on one input: "
            f"(assert (== {second.input[0]}[…] {first.input[0]}[…])) for each."
        )
    head = (
        f"(vnnlib-version <2.0>)\n(declare-network pair (declare-input X float32 [{size}]) "
        f"(declare-output Y float32 [{2 * outputs}]))"
    )
    merged = "\n".join([head, *asserted, ""])
    parse_property(merged, name)
    return PairQuery(merged, second.relation[0] == "equal-to")


def _declared(statement: Expression, name: str) -> _Network:
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    relation: tuple[str, str] | None = None
    for part in statement[2:]:
        match part:
            case [str(kind), str(word), str(tensor)] if kind in ("declare-input", "declare-output"):
                match = _INDEXED.fullmatch(tensor)
                if kind in tensors or match is None or not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", match[2]):
                    raise UnsupportedPropertyError(
                        f"{name} declares {shown(part)}; one input and one output are taken."
                    )
                if match[1].lower() not in REALS:
                    raise UnsupportedPropertyError(
                        f"{name} declares {shown(word)} as {shown(match[1])}; allowed are {', '.join(sorted(REALS))}."
                    )
                tensors[kind] = word, tuple(int(dim) for dim in match[2].split(","))
            case [str(kind), str(other)] if kind in _RELATIONS:
                relation = kind, other
            case _:
                raise UnsupportedPropertyError(f"{name} declares {shown(part)} of a network; that isn't taken.")
    if len(tensors) != 2 or not isinstance(statement[1], str):
        raise UserError(f"{name} is no VNN-LIB 2.0 file: {shown(statement)} declares no network.")
    return _Network(statement[1], tensors["declare-input"], tensors["declare-output"], relation)


def _conjuncts(formula: Expression) -> Iterator[Expression]:
    """Yields the parts of a conjunction; its depth is limited where the text is read."""
    waiting = [formula]
    while waiting:
        one = waiting.pop()
        if keyword(one) == "and":
            waiting += reversed(one[1:])
        else:
            yield one


def _place(word: str, tensor: tuple[str, tuple[int, ...]]) -> int | None:
    """Returns the flat index of a word such as ``X[0,3]``, or None if it is none of this tensor's."""
    match = _INDEXED.fullmatch(word)
    if match is None or match[1] != tensor[0]:
        return None
    indices = [int(text) for text in match[2].split(",") if text and len(text) < 10]
    if len(indices) != len(tensor[1]) or any(index >= size for index, size in zip(indices, tensor[1], strict=True)):
        return None
    place = 0
    for index, size in zip(indices, tensor[1], strict=True):
        place = place * size + index
    return place


def _equated(formula: Expression, first: _Network, second: _Network) -> int | None:
    """Returns the input that a formula equates in both networks, or None if it says something else."""
    match formula:
        case ["==" | "=", str(left), str(right)]:
            for one, other in ((left, right), (right, left)):
                place = _place(one, first.input)
                if place is not None and place == _place(other, second.input):
                    return place
        case _:
            pass
    return None


def _rewritten(formula: Expression, first: _Network, second: _Network, name: str) -> str:
    """Writes a formula over the merged network's variables."""
    words: list[str] = []
    # Without recursion: how deep Python goes is nobody's promise, since other people's libraries change that limit.
    waiting: list[tuple[Expression, int]] = [(formula, 0)]
    while waiting:
        part, depth = waiting.pop()
        if depth > _DEEPEST:
            raise UserError(f"{name} is refused: its parentheses are nested too deeply; write it flat.")
        if isinstance(part, str):
            words.append(_word(part, first, second, name))
        else:
            words.append("(")
            waiting.append((")", depth))
            waiting += [(inner, depth + 1) for inner in reversed(part)]
    return " ".join(words).replace("( ", "(").replace(" )", ")")


def _word(formula: str, first: _Network, second: _Network, name: str) -> str:
    """Writes a word over the merged network's variables."""
    outputs = math.prod(first.output[1])
    for tensor, letter, shift in (
        (first.input, "X", 0), (second.input, "X", 0), (first.output, "Y", 0), (second.output, "Y", outputs)
    ):  # fmt: skip
        place = _place(formula, tensor)
        if place is not None:
            return f"{letter}[{place + shift}]"
    if "[" in formula:
        raise UserError(f"{name} is no VNN-LIB file: {shown(formula)} is declared nowhere, or out of its shape.")
    return formula


def write_pair(lower: npt.NDArray[np.floating], upper: npt.NDArray[np.floating], spec: OutputSpec, outputs: int) -> str:
    """Writes a question about two networks as VNN-LIB 2.0.

    Args:
        lower: Lower corner of the box, of the shape of one sample; it is declared behind a batch axis of 1.
        upper: Upper corner.
        spec: The unsafe outputs of both networks.
        outputs: Of either network.
    """
    shape = "".join(f",{size}" for size in lower.shape)
    lines = ["(vnnlib-version <2.0>)"]
    for network, relation, entry, output in (("f", "", "X", "Y"), ("g", " (isomorphic-to f)", "U", "V")):
        lines.append(
            f"(declare-network {network}{relation} (declare-input {entry} float32 [1{shape}]) "
            f"(declare-output {output} float32 [1,{outputs}]))"
        )
    for index in np.ndindex(lower.shape):
        place = ",".join(map(str, (0, *index)))
        lines.append(f"(assert (== U[{place}] X[{place}]))")
        lines.append(f"(assert (>= X[{place}] {_number(float(lower[index]))}))")
        lines.append(f"(assert (<= X[{place}] {_number(float(upper[index]))}))")
    limits = spec.limits or tuple(bounds for _, bounds in spec.disjuncts)
    disjuncts = []
    for (rows, bounds), strict in zip(spec.disjuncts, limits, strict=True):
        each = zip(rows, bounds, strict < bounds, strict=True)
        disjuncts.append(f"(and {' '.join(_row(row, bound, below, outputs) for row, bound, below in each)})")
    return "\n".join([*lines, f"(assert (or {' '.join(disjuncts)}))", ""])


def _number(value: float) -> str:
    return np.format_float_positional(value, trim="0")


def _row(row: npt.NDArray[np.float64], bound: float, strict: bool, outputs: int) -> str:
    words = [f"Y[0,{place}]" if place < outputs else f"V[0,{place - outputs}]" for place in range(2 * outputs)]
    terms = [f"(* {_number(float(row[place]))} {words[place]})" for place in np.flatnonzero(row)]
    total = terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"
    return f"({'<' if strict else '<='} {total} {_number(float(bound))})"
