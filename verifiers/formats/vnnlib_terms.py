"""Terms and formulas of VNN-LIB: exact linear terms, and formulas as atoms joined by AND, OR and NOT.

All arithmetic is in rationals. A decimal stands for the binary64 number next to it, as in VNN-COMP's own checker;
what is computed from such numbers, ``(/ 1 3)`` say, is never rounded. `let` and `define-fun` are evaluated once, so
that what is used twice isn't written out twice. Nothing is recursive in Python's sense: nesting costs memory, no stack.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from prunecert.errors import UserError
from prunecert.printable import shortened
from prunecert.verifiers.formats.vnnlib_formulas import (
    NUMBER,
    Atom,
    Formula,
    LinearTerm,
    Step,
    Value,
    Variable,
    all_of,
    any_of,
    complete,
    negation,
    number,
    varies,
)
from prunecert.verifiers.formats.vnnlib_text import Expression, UnsupportedPropertyError, shown

#: Steps of evaluation that a file may take; an image's takes some ten thousand, the largest of VNN-COMP a million.
MAX_STEPS = 4_000_000
#: Bits of a numerator or denominator: products of a hundred numbers of binary64.
MAX_BITS = 100_000
_EXPONENTS = 1_024  # beyond two to this, binary64 has no number

_LOOKS_LIKE_VARIABLE = re.compile(r"[A-Za-z]\w*(?:_[0-9]+|\[[0-9,]*\])", re.ASCII)
_ALLOWED = "formulas of and, or, not, =>, xor, ite, let, <=, >=, <, >, = and distinct over X_i, Y_j and numbers"


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """What a `define-fun` with parameters defines; it may use only what was defined before it."""

    parameters: tuple[str, ...]
    body: Expression
    ordinal: int


@dataclass(slots=True, eq=False)
class NameScope:
    """What names stand for: those of `let` and of parameters, the innermost last, and how many definitions count."""

    ordinal: int
    names: dict[str, list[Value]] = field(default_factory=dict)


class TermEvaluator:
    """Evaluates the expressions of one file.

    Args:
        name: What to call the file in messages.
        variable: Returns the variable that a word names, or None.
        declared: Says what is declared, for messages about what is not.
    """

    def __init__(self, name: str, variable: Callable[[str], Variable | None], declared: Callable[[], str]) -> None:
        self.name = name
        self._variable = variable
        self._declared = declared
        self._definitions: dict[str, tuple[int, Value | Function]] = {}
        self._steps = 0

    def formula(self, expression: Expression) -> Formula:
        """Evaluates what an `assert` states.

        Raises:
            UserError: It is no formula.
            UnsupportedPropertyError: It is, but not over linear terms.
        """
        return self._truth(complete(self._value(expression, NameScope(len(self._definitions)))), expression)

    def define(self, statement: Expression) -> None:
        """Takes a `define-fun` or `define-const` in.

        Raises:
            UserError: It is malformed, or its name is taken.
        """
        match statement:
            case [_, str(word), [*parameters], str(_), body] | [_, str(word), str(_), body, *parameters] if all(
                isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) for p in parameters
            ) and (len(statement) == 5 or not parameters):
                pass
            case _:
                raise UserError(
                    f"{self.name} is no VNN-LIB file: {shown(statement)} is not understood; allowed are "
                    "(define-fun name ((parameter Real) ...) Real term) and (define-const name Real term)."
                )
        if word.lower() in _OPERATORS or word in self._definitions or self._variable(word) or NUMBER.fullmatch(word):
            raise UserError(f"{self.name} defines {shown(word)}, which has a meaning already; take another name.")
        ordinal = len(self._definitions)
        definition: Value | Function
        if parameters:
            definition = Function(tuple(str(p[0]) for p in parameters), body, ordinal)
        else:
            definition = complete(self._value(body, NameScope(ordinal)))
        self._definitions[word] = (ordinal, definition)

    def spend(self, steps: int) -> None:
        """Counts steps.

        Raises:
            UnsupportedPropertyError: There were too many.
        """
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise UnsupportedPropertyError(
                f"{self.name} takes over {MAX_STEPS} steps to be written out; split the file or write it flatter."
            )

    def _value(self, expression: Expression, scope: NameScope) -> Step:
        """Evaluates an expression."""
        self.spend(1)
        if isinstance(expression, str):
            return self._word(expression, scope)
        match expression:
            case [str(head), *operands] if head not in ("forall", "exists"):
                pass
            case _:
                raise self._strange(expression)
        definition = self._definition(head, scope)
        operator = head.lower()
        if isinstance(definition, Function):
            values = yield from self._values(operands, scope)
            if len(values) != len(definition.parameters):
                raise self._strange(expression)
            inner = NameScope(definition.ordinal, {p: [v] for p, v in zip(definition.parameters, values, strict=True)})
            return (yield self._value(definition.body, inner))
        if operator == "let":
            return (yield self._let(expression, scope))
        if operator == "!" and operands:
            # An annotation: (! formula :named a).
            return (yield self._value(operands[0], scope))
        values = yield from self._values(operands, scope)
        if definition is None and operator in _OPERATORS and values:
            return _OPERATORS[operator](self, values, expression)
        raise self._strange(expression)

    def _values(self, operands: Sequence[Expression], scope: NameScope) -> Step:
        values = []
        for operand in operands:
            # A word at once: most operands are.
            if isinstance(operand, str):
                values.append(self._word(operand, scope))
            else:
                values.append((yield self._value(operand, scope)))
        return values

    def _let(self, expression: Expression, scope: NameScope) -> Step:
        match expression:
            case [_, [*bindings], body] if bindings and all(
                isinstance(b, list) and len(b) == 2 and isinstance(b[0], str) for b in bindings
            ):
                pass
            case _:
                raise self._strange(expression)
        # All at once: none of the new names is known to the others' terms.
        values = yield from self._values([b[1] for b in bindings], scope)
        words = [str(b[0]) for b in bindings]
        for word, value in zip(words, values, strict=True):
            scope.names.setdefault(word, []).append(value)
        result = yield self._value(body, scope)
        for word in words:
            scope.names[word].pop()
        return result

    def _definition(self, word: str, scope: NameScope) -> Value | Function | None:
        ordinal, meaning = self._definitions.get(word, (0, None))
        return meaning if meaning is not None and ordinal < scope.ordinal else None

    def _word(self, word: str, scope: NameScope) -> Value:
        """Returns what a single word stands for."""
        self.spend(1)
        if scope.names.get(word):
            return scope.names[word][-1]
        variable = self._variable(word)
        if variable is not None:
            return LinearTerm({variable: Fraction(1)}, Fraction(0))
        value = number(word, self.name)
        if value is not None:
            return LinearTerm({}, Fraction(value))
        if word.lower() in ("true", "false"):
            return word.lower() == "true"
        definition = self._definition(word, scope)
        if definition is not None and not isinstance(definition, Function):
            return definition
        if _LOOKS_LIKE_VARIABLE.fullmatch(word):
            raise UserError(f"{self.name} uses {shown(word)}, which it does not declare; {self._declared()}.")
        raise UserError(
            f"{self.name} is no VNN-LIB file: {shortened(repr(word), 60)} is neither a number nor X_i nor Y_j."
        )

    def _strange(self, expression: Expression) -> UserError:
        match expression:
            case [("abs" | "min" | "max" | "mod" | "div" | "^" | "pow" | "exp" | "forall" | "exists") as operator, *_]:
                return UnsupportedPropertyError(
                    f"{self.name} uses {operator!r} in {shown(expression)}; allowed are linear terms, and {_ALLOWED}."
                )
            case _:
                return UserError(
                    f"{self.name} is no VNN-LIB file: {shown(expression)} is not understood; allowed are linear terms, "
                    f"and {_ALLOWED}."
                )

    def _truth(self, value: Value, expression: Expression) -> Formula:
        """Returns a value that has to be a formula."""
        if isinstance(value, LinearTerm):
            raise UserError(
                f"{self.name} is no VNN-LIB file: the formula {shown(expression)} is not understood; allowed are "
                f"{_ALLOWED}."
            )
        return value

    def _term(self, value: Value, expression: Expression) -> LinearTerm:
        """Returns a value that has to be a linear term."""
        if not isinstance(value, LinearTerm):
            raise UserError(f"{self.name} is no VNN-LIB file: a formula stands for a number in {shown(expression)}.")
        return value

    def _measured(self, value: Fraction, expression: Expression) -> Fraction:
        high, low = value.numerator.bit_length(), value.denominator.bit_length()
        self.spend(1 + high // 64 + low // 64)
        if max(high, low) > MAX_BITS or high - low > _EXPONENTS:
            raise UserError(
                f"{self.name} has the term {shown(expression)}, whose constants are too large or too small together "
                "for binary64; scale the inequality."
            )
        return value

    # Operators: each takes the evaluator, its operands' values and the expression, for messages.

    def _sum(self, values: Sequence[Value], expression: Expression) -> Value:
        return self._joined(values, expression, 1)

    def _difference(self, values: Sequence[Value], expression: Expression) -> Value:
        if len(values) == 1:
            return self._scaled(self._term(values[0], expression), Fraction(-1), expression)
        return self._joined(values, expression, -1)

    def _joined(self, values: Sequence[Value], expression: Expression, sign: int) -> LinearTerm:
        first = self._term(values[0], expression)
        coefficients, constant = dict(first.coefficients), first.constant
        self.spend(len(coefficients))
        for value in values[1:]:
            term = self._term(value, expression)
            self.spend(len(term.coefficients))
            for variable, c in term.coefficients.items():
                old = coefficients.get(variable)
                coefficients[variable] = sign * c if old is None else self._measured(old + sign * c, expression)
            constant = self._measured(constant + sign * term.constant, expression)
        return LinearTerm(coefficients, constant)

    def _scaled(self, term: LinearTerm, factor: Fraction, expression: Expression) -> LinearTerm:
        return LinearTerm(
            {v: self._measured(c * factor, expression) for v, c in term.coefficients.items()},
            self._measured(term.constant * factor, expression),
        )

    def _product(self, values: Sequence[Value], expression: Expression) -> Value:
        product = self._term(values[0], expression)
        for value in values[1:]:
            other = self._term(value, expression)
            if varies(product) and varies(other):
                raise UnsupportedPropertyError(
                    f"{self.name} multiplies variables in {shown(expression)}; allowed are linear constraints."
                )
            if varies(other):
                product, other = other, product
            product = self._scaled(product, other.constant, expression)
        return product

    def _quotient(self, values: Sequence[Value], expression: Expression) -> Value:
        quotient = self._term(values[0], expression)
        if len(values) == 1:
            raise self._strange(expression)
        for value in values[1:]:
            divisor = self._term(value, expression)
            if varies(divisor) or not divisor.constant:
                raise UnsupportedPropertyError(
                    f"{self.name} divides by {'a variable' if varies(divisor) else '0'} in {shown(expression)}; "
                    "allowed are quotients by constants other than 0."
                )
            quotient = self._scaled(quotient, 1 / divisor.constant, expression)
        return quotient

    def _compared(self, left: Value, right: Value, expression: Expression, *, strict: bool) -> Formula:
        """Translates left <= right, or left < right."""
        low, high = self._term(left, expression), self._term(right, expression)
        difference = self._joined([low, high], expression, -1)
        terms = {v: c for v, c in difference.coefficients.items() if c}
        limit = -difference.constant
        letters = {letter for letter, _ in terms}
        if not letters:
            return limit > 0 if strict else limit >= 0
        if letters == {"Y"} or len(terms) == 1:
            return Atom(letters.pop(), tuple((i, c) for (_, i), c in terms.items()), limit, strict)
        raise UnsupportedPropertyError(
            f"{self.name} has the constraint {shown(expression)}, which "
            + ("mixes inputs and outputs" if len(letters) == 2 else "ties several inputs together")
            + "; allowed are bounds of single inputs and linear constraints on outputs."
        )

    def _chain(self, values: Sequence[Value], expression: Expression, *, strict: bool, falling: bool) -> Formula:
        if len(values) < 2:
            raise self._strange(expression)
        pairs = [(b, a) if falling else (a, b) for a, b in itertools.pairwise(values)]
        return all_of([self._compared(a, b, expression, strict=strict) for a, b in pairs])

    def _equal(self, values: Sequence[Value], expression: Expression) -> Formula:
        if len(values) < 2:
            raise self._strange(expression)
        parts: list[Formula] = []
        for a, b in itertools.pairwise(values):
            if isinstance(a, LinearTerm) or isinstance(b, LinearTerm):
                parts += [self._compared(p, q, expression, strict=False) for p, q in ((a, b), (b, a))]
            else:
                parts.append(any_of([all_of([a, b]), all_of([negation(a), negation(b)])]))
        return all_of(parts)

    def _distinct(self, values: Sequence[Value], expression: Expression) -> Formula:
        if len(values) < 2:
            raise self._strange(expression)
        self.spend(len(values) ** 2)
        return all_of([negation(self._equal(pair, expression)) for pair in itertools.combinations(values, 2)])

    def _and(self, values: Sequence[Value], expression: Expression) -> Formula:
        return all_of([self._truth(value, expression) for value in values])

    def _or(self, values: Sequence[Value], expression: Expression) -> Formula:
        return any_of([self._truth(value, expression) for value in values])

    def _not(self, values: Sequence[Value], expression: Expression) -> Formula:
        if len(values) != 1:
            raise self._strange(expression)
        return negation(self._truth(values[0], expression))

    def _implies(self, values: Sequence[Value], expression: Expression) -> Formula:
        # From the right: a => b => c is a => (b => c), which holds where a or b doesn't, or c does.
        *premises, conclusion = (self._truth(value, expression) for value in values)
        if not premises:
            raise self._strange(expression)
        return any_of([*(negation(premise) for premise in premises), conclusion])

    def _xor(self, values: Sequence[Value], expression: Expression) -> Formula:
        if len(values) < 2:
            raise self._strange(expression)
        first, *others = (self._truth(value, expression) for value in values)
        for other in others:
            first = any_of([all_of([first, negation(other)]), all_of([negation(first), other])])
        return first

    def _if_then_else(self, values: Sequence[Value], expression: Expression) -> Value:
        if len(values) != 3:
            raise self._strange(expression)
        condition = self._truth(values[0], expression)
        if isinstance(condition, bool):
            return values[1] if condition else values[2]
        if isinstance(values[1], LinearTerm) or isinstance(values[2], LinearTerm):
            raise UnsupportedPropertyError(
                f"{self.name} uses 'ite' between terms in {shown(expression)}; allowed is ite between formulas."
            )
        return any_of([all_of([condition, values[1]]), all_of([negation(condition), values[2]])])


_OPERATORS: dict[str, Callable[[TermEvaluator, Sequence[Value], Expression], Value]] = {
    "+": TermEvaluator._sum,
    "-": TermEvaluator._difference,
    "*": TermEvaluator._product,
    "/": TermEvaluator._quotient,
    "<=": lambda e, v, x: e._chain(v, x, strict=False, falling=False),
    ">=": lambda e, v, x: e._chain(v, x, strict=False, falling=True),
    "<": lambda e, v, x: e._chain(v, x, strict=True, falling=False),
    ">": lambda e, v, x: e._chain(v, x, strict=True, falling=True),
    "=": TermEvaluator._equal,
    "==": TermEvaluator._equal,
    "distinct": TermEvaluator._distinct,
    "!=": TermEvaluator._distinct,
    "and": TermEvaluator._and,
    "or": TermEvaluator._or,
    "not": TermEvaluator._not,
    "=>": TermEvaluator._implies,
    "implies": TermEvaluator._implies,
    "xor": TermEvaluator._xor,
    "ite": TermEvaluator._if_then_else,
    "to_real": lambda e, v, x: e._term(v[0], x),
}
