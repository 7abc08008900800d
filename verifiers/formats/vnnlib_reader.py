"""Reads VNN-LIB text into boxes and linear output constraints; `verifiers.formats.vnnlib` is the public door to it.

VNN-LIB 1.0 (Demarchi et al. 2023, "Supporting Standardization of Neural Networks Verification with VNNLIB and
CoCoNet") is read as people write it, which is SMT-LIB: `declare-const` of X_i and Y_j, `define-fun`, and assertions of
any formula over comparisons of linear terms. VNN-LIB 2.0 is read where it speaks of one network with one input and one
output, with or without its version line; its variables are ``X[0,3]``, in C order. `docs/vnnlib.md` says what is taken
and how it is understood: strict inequalities, numbers, empty input sets, files without a constraint on the outputs.

Numbers are read as VNN-COMP's own checker reads them: each decimal is rounded correctly to binary64. All that follows
is exact, and is rounded outwards for proofs and inwards for counterexamples (`verifiers.formats.vnnlib_boxes`). No
bound is rounded to float32 here.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prunecert.errors import UserError
from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.formats.vnnlib_boxes import MAX_CELLS, Box, DoubleArray, clauses, specification
from prunecert.verifiers.formats.vnnlib_formulas import Atom, Formula, Variable, number
from prunecert.verifiers.formats.vnnlib_terms import TermEvaluator
from prunecert.verifiers.formats.vnnlib_text import (
    Expression,
    UnsupportedPropertyError,
    expressions,
    keyword,
    plain,
    script,
    shown,
)

__all__ = ["DoubleArray", "Parsed", "ParsedCase", "UnsupportedPropertyError", "parse"]

#: More variables than this are refused before memory is taken for them.
MAX_VARIABLES = 10_000_000

_VARIABLE = re.compile(r"([XYxy])_([0-9]+)")
_NETWORK = re.compile(r"\(\s*declare-network[\s(]", re.ASCII | re.IGNORECASE)
_VERSION = re.compile(r"\(\s*vnnlib-version\s*<?\s*([0-9]+)(?:\.[0-9]+)*\s*>?\s*\)", re.ASCII | re.IGNORECASE)
# The two statements that make up nearly all of an image's file (6,144 bounds for CIFAR-10) are taken out at once:
# walking through them token by token costs ten times as much.
_DECLARATION = re.compile(r"\(declare-(?:const|fun) ([XYxy])_(0|[1-9][0-9]{0,8}) (?:\(\) )?Real\)")
_BOUND = re.compile(
    r"\(assert \((<=|>=) ([Xx])_(0|[1-9][0-9]{0,8}) ([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\)\)"
)
#: What gives a statement's place in the file a meaning.
_ORDERED = re.compile(r"\(\s*(?:check-sat|push|pop|reset|exit)", re.ASCII | re.IGNORECASE)
_BLANKS = re.compile(r"\s+", re.ASCII)
_INDICES = re.compile(r" ?\[ ?((?:[0-9]+ ?(?:, ?[0-9]+ ?)*)?)\]")
_INDEXED = re.compile(r"([^\[\]]+)\[([0-9,]*)\]")
#: Types of VNN-LIB 2.0 whose variables are taken as real numbers.
REALS = frozenset(["real", "float16", "float32", "float64", "bfloat16"])


@dataclass(frozen=True, eq=False)
class ParsedCase:
    """A box with its unsafe outputs.

    Args:
        lower: Lower corner, rounded downwards; float64 of shape [inputs], finite.
        upper: Upper corner, rounded upwards; at or above `lower`.
        inner_lower: Corner of the box in which a counterexample has to lie: at or above `lower`.
        inner_upper: Likewise; a coordinate may be below `inner_lower` where no number of binary64 is inside.
        spec: The unsafe outputs.
    """

    lower: DoubleArray
    upper: DoubleArray
    inner_lower: DoubleArray
    inner_upper: DoubleArray
    spec: OutputSpec


@dataclass(frozen=True, eq=False)
class Parsed:
    """A file's boxes, each with its unsafe outputs.

    Args:
        inputs: Number of input variables.
        outputs: Number of output variables.
        cases: Boxes; none if nothing can meet what the file asserts, whatever the network.
        version: VNN-LIB version of the text.
        empty: Why there is no case; empty if there is one.
    """

    inputs: int
    outputs: int
    cases: tuple[ParsedCase, ...]
    version: str
    empty: str = ""


@dataclass(eq=False)
class _Question:
    """What is declared, the common box of the plain bounds, and all other assertions."""

    inputs: int
    outputs: int
    box: Box
    formulas: list[Formula]


def parse(text: str, name: str) -> Parsed:
    """Parses VNN-LIB 1.0 or 2.0 text.

    Args:
        text: The file's text.
        name: What to call the file in messages.

    Raises:
        UserError: The text isn't VNN-LIB.
        UnsupportedPropertyError: It is, but no union of boxes with linear output constraints.
    """
    text = plain(text, name)
    named = {int(major) if len(major) < 5 else 0 for major in _VERSION.findall(text)}
    if named - {1, 2}:
        raise UnsupportedPropertyError(f"{name} names a VNN-LIB version that is not known; allowed are 1.0 and 2.0.")
    if 2 in named or _NETWORK.search(text):
        if 1 in named:
            raise UserError(f"{name} names VNN-LIB 1.0 but is written in 2.0; correct its version.")
        return _assemble(name, "2.0", _read_2(text, name))
    return _assemble(name, "1.0", _read_1(_VERSION.sub(" ", text), name))


def _read_1(text: str, name: str) -> _Question:
    """Reads VNN-LIB 1.0 text."""
    declared: dict[str, Variable] = {}
    bounds = _PlainBounds(name)
    first = _ORDERED.search(text)
    # What is taken out below has no place in the order any more, so that none of it may follow such a command.
    if first is None or max(text.rfind(word, first.start()) for word in ("(assert", "(declare-")) < 0:

        def declare(match: re.Match[str]) -> None:
            declared[f"{match[1]}_{match[2]}"] = (match[1].upper(), int(match[2]))

        text = _taken_out(_BOUND, bounds.take, _taken_out(_DECLARATION, declare, text, name), name)
    statements = list(script(expressions(text, name), name))
    for statement in statements:
        match = _declared(statement)
        if match is None:
            if keyword(statement) not in ("assert", "define-fun", "define-const"):
                raise _strange(statement, name, "(declare-const X_i Real), (declare-const Y_j Real)")
        else:
            if len(match[2]) > 9:
                raise UserError(
                    f"{name} declares {shown(match[0])}; allowed are up to {MAX_VARIABLES} variables from X_0 on."
                )
            declared[match[0]] = (match[1].upper(), int(match[2]))
    counts = {letter: _count(declared, letter, name) for letter in "XY"}
    evaluator = TermEvaluator(name, declared.get, lambda: f"declared are {_listed(declared)}")
    formulas = []
    for statement in statements:
        match statement:
            case [_, formula] if keyword(statement) == "assert":
                formulas.append(evaluator.formula(formula))
            case [_, *_] if keyword(statement) in ("define-fun", "define-const"):
                evaluator.define(statement)
            case _ if _declared(statement):
                pass
            case _:
                raise _strange(statement, name, "(declare-const X_i Real), (declare-const Y_j Real)")
    return _Question(counts["X"], counts["Y"], bounds.box(declared, counts["X"]), formulas)


def _declared(statement: Expression) -> re.Match[str] | None:
    """Returns the letter and index of the variable that a statement declares; None if it declares none."""
    match statement:
        case [str(word), str(variable), str(sort)] | [str(word), str(variable), [], str(sort)] if (
            word.lower() in ("declare-const", "declare-fun") and sort.lower() == "real"
        ):
            return _VARIABLE.fullmatch(variable)
        case _:
            return None


def _strange(statement: Expression, name: str, declarations: str) -> UserError:
    return UserError(
        f"{name} is no VNN-LIB file: the statement {shown(statement)} is not understood; allowed are "
        f"{declarations}, (define-fun ...) and (assert ...)."
    )


def _count(declared: dict[str, Variable], letter: str, name: str) -> int:
    """Returns the number of declared variables of a letter, which have to be numbered from 0 on, each once."""
    spellings: dict[int, str] = {}
    for spelling, (kind, index) in declared.items():
        if kind == letter and spellings.setdefault(index, spelling) != spelling:
            raise UserError(f"{name} declares both {spellings[index]} and {spelling}; allowed is one spelling of each.")
    if not spellings or max(spellings) != len(spellings) - 1:
        raise UserError(
            f"{name} declares {len(spellings)} variables {letter}_i, "
            f"{'the highest ' + letter + '_' + str(max(spellings)) if spellings else 'none'}; VNN-LIB wants "
            f"{letter}_0, {letter}_1, ... without a gap, and at least one."
        )
    if len(spellings) > MAX_VARIABLES:
        raise UserError(f"{name} declares {len(spellings)} variables {letter}_i; allowed are up to {MAX_VARIABLES}.")
    return len(spellings)


def _listed(declared: dict[str, Variable]) -> str:
    """Says which variables are declared: the first and the last of each letter."""
    ends = []
    for letter in "XY":
        words = sorted((index, word) for word, (kind, index) in declared.items() if kind == letter)
        ends.append(words[0][1] if len(words) == 1 else f"{words[0][1]} to {words[-1][1]}")
    return " and ".join(ends)


def _taken_out(pattern: re.Pattern[str], take: Callable[[re.Match[str]], None], text: str, name: str) -> str:
    """Takes statements of one form out of a text.

    Raises:
        UserError: One stands inside of another expression.
    """
    depth = end = 0

    def taken(match: re.Match[str]) -> str:
        nonlocal depth, end
        start = match.start()
        depth += text.count("(", end, start) - text.count(")", end, start)
        end = match.end()
        if depth:
            raise UserError(f"{name} is no VNN-LIB file: {shown(match[0])} stands inside of another expression.")
        take(match)
        return " "

    return pattern.sub(taken, text)


class _PlainBounds:
    """Bounds of the form ``(assert (<= X_0 0.5))``, in the order of the file, without an object for each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_upper = bytearray()
        self._is_small = bytearray()
        self._indices = array("q")
        self._values = array("d")

    def take(self, match: re.Match[str]) -> None:
        """Adds a bound that was found in the text."""
        operator, letter, index, decimal = match.groups()
        value = float(decimal) if len(decimal) < 100 else number(decimal, self._name) or 0.0
        if value == 0.0 or not math.isfinite(value):
            # Refuses what isn't 0 as it is written; -0.0 stays what it is.
            number(decimal, self._name)
        self._is_upper.append(operator == "<=")
        self._is_small.append(letter == "x")
        self._indices.append(int(index))
        self._values.append(value)

    def box(self, declared: dict[str, Variable], inputs: int) -> Box:
        """Returns the box of these bounds.

        Raises:
            UserError: A variable isn't declared, or not in this spelling.
        """
        lower, upper = np.full(inputs, -np.inf), np.full(inputs, np.inf)
        if len(self._indices):
            indices = np.frombuffer(self._indices, dtype=np.int64)
            values = np.frombuffer(self._values)
            for letter, chosen in (("X", 0), ("x", 1)):
                for index in np.unique(indices[np.frombuffer(self._is_small, dtype=np.uint8) == chosen]).tolist():
                    if f"{letter}_{index}" not in declared:
                        raise UserError(
                            f"{self._name} uses {letter}_{index}, which it does not declare; declared are "
                            f"{_listed(declared)}."
                        )
            is_upper = np.frombuffer(self._is_upper, dtype=np.bool_)
            np.maximum.at(lower, indices[~is_upper], values[~is_upper])
            np.minimum.at(upper, indices[is_upper], values[is_upper])
        return Box(self._name, lower, upper, lower, upper)


def _read_2(text: str, name: str) -> _Question:
    """Reads VNN-LIB 2.0 text: one network with one input and one output."""
    # X [0, 3] is one word from here on.
    text = _BLANKS.sub(" ", _VERSION.sub(" ", text))
    text = _INDICES.sub(lambda match: f"[{match[1].replace(' ', '')}] ", text)
    statements = list(script(expressions(text, name), name))
    networks = [statement for statement in statements if keyword(statement) == "declare-network"]
    if not networks:
        raise UserError(f"{name} is no VNN-LIB 2.0 file: it has no (declare-network ...).")
    parts = networks[0][2:] if isinstance(networks[0], list) else []
    kinds = sorted(keyword(part) for part in parts)
    if len(networks) == 2:
        raise UnsupportedPropertyError(
            f"{name} speaks of two networks, and one is asked about; name the second with bench.verify --with."
        )
    if len(networks) > 1 or (kinds != ["declare-input", "declare-output"] and all(kinds)):
        raise UnsupportedPropertyError(
            f"{name} speaks of several networks, inputs, outputs or of hidden nodes; allowed is one network with one "
            "input and one output."
        )
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for part in parts:
        match part:
            case [_, str(word), str(tensor)] if match := _INDEXED.fullmatch(tensor):
                if match[1].lower() not in REALS:
                    raise UnsupportedPropertyError(
                        f"{name} declares {shown(word)} as {shown(match[1])}; allowed are {', '.join(sorted(REALS))}."
                    )
                tensors[word] = ("X" if keyword(part) == "declare-input" else "Y", _shape(match[2], word, name))
            case _:
                raise _strange(part, name, "(declare-input X float32 [1,5]), (declare-output Y float32 [1,3])")
    if len(tensors) != 2:
        raise UserError(f"{name} is no VNN-LIB 2.0 file: its input and its output need two different names.")
    counts = {letter: math.prod(shape) for letter, shape in tensors.values()}
    evaluator = TermEvaluator(
        name,
        _lookup(tensors),
        lambda: "declared are " + " and ".join(f"{shown(w)} of shape {list(s)}" for w, (_, s) in tensors.items()),
    )
    formulas = []
    for statement in statements:
        match statement:
            case [_, formula] if keyword(statement) == "assert":
                formulas.append(evaluator.formula(formula))
            case [_, *_] if keyword(statement) in ("define-fun", "define-const"):
                evaluator.define(statement)
            case _ if statement is networks[0]:
                pass
            case _:
                raise _strange(statement, name, "(declare-network ...)")
    lower, upper = np.full(counts["X"], -np.inf), np.full(counts["X"], np.inf)
    return _Question(counts["X"], counts["Y"], Box(name, lower, upper, lower, upper), formulas)


def _shape(text: str, word: str, name: str) -> tuple[int, ...]:
    """Reads a tensor's shape, e.g. ``1,3,32,32``; that of a scalar is empty."""
    dims = tuple(int(dim) if len(dim) < 12 else MAX_VARIABLES + 1 for dim in text.split(",") if text)
    if 0 in dims or math.prod(dims) > MAX_VARIABLES:
        raise UserError(
            f"{name} declares {shown(word)} with the shape [{shown(text)}]; allowed are 1 to {MAX_VARIABLES} numbers."
        )
    return dims


def _lookup(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Callable[[str], Variable | None]:
    """Returns what finds the variable of a word such as ``X[0,3]``."""

    def found(word: str) -> Variable | None:
        match = _INDEXED.fullmatch(word)
        letter, shape = tensors.get(match[1] if match else word, ("", ()))
        if not letter:
            return None
        texts = [text for text in match[2].split(",") if text] if match else []
        if len(texts) != len(shape):
            return None
        if any(len(text) > 9 or int(text) >= n for text, n in zip(texts, shape, strict=True)):
            return None
        index = 0
        for text, n in zip(texts, shape, strict=True):
            index = index * n + int(text)
        return letter, index

    return found


def _assemble(name: str, version: str, question: _Question) -> Parsed:
    """Makes boxes and constraint matrices of what was read."""
    inputs, outputs = question.inputs, question.outputs
    empty = "no output can meet what it asserts"
    cases: dict[tuple[bytes, ...], tuple[Box, list[list[Atom]]]] = {}
    cells = 0
    common, every = clauses(question.formulas, name)
    rows = [atom for atom in common if atom.letter == "Y"]
    start = question.box.tightened([atom for atom in common if atom.letter == "X"])
    for clause in every:
        box = start.tightened([atom for atom in clause if atom.letter == "X"])
        gap = box.gap()
        if gap is not None:
            empty = f"its input set is empty: X_{gap} has a lower bound above its upper one" + (
                "" if len(every) == 1 else " in every case"
            )
            continue
        index = box.unbounded()
        if index is not None:
            raise UnsupportedPropertyError(
                f"{name} leaves X_{index} without a finite lower or upper bound; allowed are boxes."
            )
        _, alternatives = cases.setdefault(box.key(), (box, []))
        cells += (0 if alternatives else 4 * inputs) + outputs * (len(rows) + len(clause))
        if cells > MAX_CELLS:
            raise UnsupportedPropertyError(
                f"{name} takes over {MAX_CELLS} numbers once its boxes and constraints are written out; split the file."
            )
        alternatives.append([*rows, *(atom for atom in clause if atom.letter == "Y")])
    parsed_cases = tuple(
        ParsedCase(box.lower, box.upper, box.inner_lower, box.inner_upper, specification(alternatives, outputs, name))
        for box, alternatives in cases.values()
    )
    return Parsed(inputs, outputs, parsed_cases, version, "" if parsed_cases else empty)
