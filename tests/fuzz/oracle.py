"""An evaluator of VNN-LIB text that shares nothing with the reader: is a point a counterexample of a file?

Recursive, slow and strict, for files of a few kilobytes; what it isn't sure of, it doesn't judge.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

_SKIPPED = {"set-logic", "set-info", "set-option", "get-model", "get-value", "echo", "vnnlib-version"}


class NotUnderstoodError(Exception):
    """The evaluator can't say what the text means."""


def lex(text: str) -> list[str]:
    """Splits text into parentheses and words; comments go."""
    words, i = [], 0
    text = text.removeprefix("\ufeff")
    while i < len(text):
        c = text[i]
        if c == ";":
            while i < len(text) and text[i] not in "\r\n":
                i += 1
        elif c in " \t\r\n\f\v":
            i += 1
        elif c in "()":
            words.append(c)
            i += 1
        elif c in '|"':
            end = text.find(c, i + 1)
            if end < 0:
                raise NotUnderstoodError("an open quotation")
            words.append(text[i + 1 : end] if c == "|" and text[i + 1 : end].isalnum() else c + text[i + 1 : end] + c)
            i = end + 1
        else:
            start = i
            while i < len(text) and text[i] not in ' \t\r\n\f\v();|"':
                i += 1
            words.append(text[start:i])
    return words


def nest(words: Sequence[str]) -> list[Any]:
    """Builds nested lists."""
    stack: list[list[Any]] = [[]]
    for word in words:
        if word == "(":
            stack.append([])
        elif word == ")":
            if len(stack) == 1:
                raise NotUnderstoodError("a stray parenthesis")
            closed = stack.pop()
            stack[-1].append(closed)
        else:
            stack[-1].append(word)
        if len(stack) > 150:
            raise NotUnderstoodError("too deep")
    if len(stack) > 1:
        raise NotUnderstoodError("an open parenthesis")
    return stack[0]


class Oracle:
    """A file's meaning, as a test of points.

    Args:
        text: The file's text.

    Raises:
        NotUnderstoodError: Its meaning isn't clear.
    """

    def __init__(self, text: str) -> None:
        if not text.isascii():
            text = "".join(c if c.isascii() or c == "\ufeff" else "\x01" for c in text)
        text = re.sub(r"\(\s*vnnlib-version\s*<?[12]\.0>?\s*\)", " ", text)
        # X [0, 1] as one word.
        text = re.sub(r"\[[^\[\]]*\]", lambda m: re.sub(r"\s", "", m[0]), text) if "declare-network" in text else text
        text = re.sub(r"\s+\[", "[", text) if "declare-network" in text else text
        self.names: dict[str, tuple[str, int]] = {}
        self.assertions: list[tuple[Any, int]] = []
        self.definitions: list[tuple[str, list[str], Any]] = []
        levels = [0]
        goals: int | None = None
        for statement in nest(lex(text)):
            if not isinstance(statement, list) or not statement or not isinstance(statement[0], str):
                raise NotUnderstoodError("a statement")
            head = statement[0].lower()
            if head in _SKIPPED:
                continue
            if head == "exit":
                break
            if goals is not None and head != "pop":
                raise NotUnderstoodError("goes on")
            if head == "check-sat":
                goals = len(self.assertions)
                final = list(self.assertions)
            elif head == "push":
                levels += [len(self.assertions)] * int(statement[1] if len(statement) > 1 else 1)
            elif head == "pop":
                for _ in range(int(statement[1] if len(statement) > 1 else 1)):
                    if len(levels) < 2:
                        raise NotUnderstoodError("pop")
                    del self.assertions[levels.pop() :]
            elif head == "assert" and len(statement) == 2:
                self.assertions.append((statement[1], len(self.definitions)))
            elif head in ("declare-const", "declare-fun") and len(levels) == 1:
                self._declare(statement)
            elif head == "declare-network" and len(statement) == 4:
                for part in statement[2:]:
                    self._tensor(part)
            elif head == "define-fun" and len(statement) == 5:
                self.definitions.append((statement[1], [p[0] for p in statement[2]], statement[4]))
            else:
                raise NotUnderstoodError(head)
        if goals is not None:
            self.assertions = final
        for letter in "XY":
            indices = sorted(i for kind, i in self.names.values() if kind == letter)
            if not indices or indices != list(range(len(indices))):
                raise NotUnderstoodError("declarations")

    def count(self, letter: str) -> int:
        """Returns how many variables of a letter there are."""
        return sum(kind == letter for kind, _ in self.names.values())

    def _declare(self, statement: list[Any]) -> None:
        match statement:
            case [_, str(word), "Real"] | [_, str(word), [], "Real"] if re.fullmatch("[XxYy]_[0-9]{1,4}", word):
                self.names[word] = (word[0].upper(), int(word[2:]))
            case _:
                raise NotUnderstoodError("a declaration")

    def _tensor(self, part: Any) -> None:
        match part:
            case ["declare-input" | "declare-output" as kind, str(word), str(tensor)] if parts := re.fullmatch(
                r"(real|float32|float64)\[([0-9,]*)\]", tensor
            ):
                dims = [int(dim) for dim in parts[2].split(",") if dim]
                letter = "X" if kind == "declare-input" else "Y"
                for i, place in enumerate(itertools.product(*(range(dim) for dim in dims))):
                    name = f"{word}[{','.join(map(str, place))}]" if dims else word
                    if name in self.names or i > 10_000:
                        raise NotUnderstoodError("a tensor")
                    self.names[name] = (letter, i)
            case _:
                raise NotUnderstoodError("a tensor")

    def holds(self, x: Sequence[float], y: Sequence[float]) -> bool:
        """Whether a point and its outputs meet what the file asserts: a counterexample."""
        values = {"X": [Fraction(v) for v in x], "Y": [Fraction(v) for v in y]}
        scope: dict[str, Any] = {word: values[letter][i] for word, (letter, i) in self.names.items()}
        return all(self._boolean(self._value(body, scope, count)) for body, count in self.assertions)

    def _boolean(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise NotUnderstoodError("no formula")
        return value

    def _value(self, expression: Any, scope: Mapping[str, Any], count: int) -> Any:
        if isinstance(expression, str):
            return self._word(expression, scope, count)
        if not expression or not isinstance(expression[0], str):
            raise NotUnderstoodError("an expression")
        head, operands = expression[0], expression[1:]
        if head == "let":
            inner = dict(scope)
            for word, body in operands[0]:
                inner[word] = self._value(body, scope, count)
            return self._value(operands[1], inner, count)
        values = [self._value(operand, scope, count) for operand in operands]
        for ordinal, (word, parameters, body) in enumerate(self.definitions[:count]):
            if word == head and len(parameters) == len(values) > 0:
                variables = {w: scope[w] for w in self.names}
                return self._value(body, {**variables, **dict(zip(parameters, values, strict=True))}, ordinal)
        return self._applied(head.lower(), values)

    def _word(self, word: str, scope: Mapping[str, Any], count: int) -> Any:
        if word in scope:
            return scope[word]
        if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", word):
            value = float(word)
            if value in (float("inf"), float("-inf")):
                raise NotUnderstoodError("a number")
            return Fraction(value)
        if word.lower() in ("true", "false"):
            return word.lower() == "true"
        for ordinal, (name, parameters, body) in enumerate(self.definitions[:count]):
            if name == word and not parameters:
                return self._value(body, {w: scope[w] for w in self.names}, ordinal)
        raise NotUnderstoodError(word)

    def _applied(self, operator: str, values: list[Any]) -> Any:
        logical = all(isinstance(value, bool) for value in values)
        number = not any(isinstance(value, bool) for value in values)
        match operator, values:
            case ("+", [_, *_]) if number:
                return sum(values[1:], values[0])
            case ("-", [value]) if number:
                return -value
            case ("-", [first, *others]) if number:
                return first - sum(others)
            case ("*", [first, *others]) if number:
                for other in others:
                    first *= other
                return first
            case ("/", [first, *others]) if number and others and all(others):
                for other in others:
                    first /= other
                return first
            case ("and", [_, *_]) if logical:
                return all(values)
            case ("or", [_, *_]) if logical:
                return any(values)
            case ("not", [value]) if logical:
                return not value
            case ("=>", [*premises, conclusion]) if logical and premises:
                return conclusion or not all(premises)
            case ("xor", [_, _, *_]) if logical:
                return sum(values) % 2 == 1
            case ("ite", [condition, *branches]) if isinstance(condition, bool) and len(branches) == 2:
                return branches[0] if condition else branches[1]
            case ("<=" | ">=" | "<" | ">", [_, _, *_]) if number:
                return all(self._compared(operator, a, b) for a, b in itertools.pairwise(values))
            case ("=" | "==", [_, _, *_]) if number or logical:
                return all(a == b for a, b in itertools.pairwise(values))
            case ("distinct" | "!=", [_, _, *_]) if number or logical:
                return all(a != b for a, b in itertools.combinations(values, 2))
            case _:
                raise NotUnderstoodError(operator)

    @staticmethod
    def _compared(operator: str, a: Fraction, b: Fraction) -> bool:
        return {"<=": a <= b, ">=": a >= b, "<": a < b, ">": a > b}[operator]
