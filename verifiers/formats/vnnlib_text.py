"""From VNN-LIB text to its statements: comments, tokens, parentheses, and the commands of an SMT-LIB script.

Nothing here is recursive, and every size is limited before memory is taken for it: files come from strangers. The
lexical rules are SMT-LIB's, which VNN-LIB 1.0 is written in: comments from ``;`` to the end of the line, symbols in
bars, strings in quotation marks. Words of the language are taken in lower and upper case; names of variables are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

from prunecert.errors import UserError
from prunecert.printable import shortened

#: A token, or a parenthesised list of expressions.
Expression: TypeAlias = "str | list[Expression]"

#: Deeper parentheses than this are refused: files of competitions have five levels.
MAX_DEPTH = 10_000
#: More tokens than this are refused; bounds in the usual form, which are most of a large file, don't count.
MAX_TOKENS = 8_000_000
#: More bars and quotation marks than this are refused; a symbol or string takes two.
MAX_QUOTES = 1_000_000

_TOKEN = re.compile(r"[()]|[^\s()]+", re.ASCII)
_QUOTED = re.compile(r'\|[^|]*\||"[^"]*"|;[^\r\n]*')
_COMMENT = re.compile(r";[^\r\n]*")
_SIMPLE = re.compile(r"[A-Za-z0-9~!@$%^&*_+=<>.?/-]+", re.ASCII)

#: Commands of SMT-LIB that ask or tell something beside the question.
_IGNORED = frozenset(
    (
        *("set-logic", "set-info", "set-option", "get-model", "get-value", "get-info", "get-option", "get-assertions"),
        *("get-unsat-core", "get-unsat-assumptions", "get-proof", "get-assignment", "echo"),
    )
)


class UnsupportedPropertyError(UserError):
    """A well-formed property that is no union of boxes with linear output constraints: status `unsupported`."""


def plain(text: str, name: str) -> str:
    """Removes a byte-order mark and comments; symbols in bars and strings become single tokens.

    A symbol in bars that could stand without them is the same symbol; any other becomes a token of its own.

    Raises:
        UserError: There are too many symbols in bars, or strings.
    """
    text = text.removeprefix("\ufeff")
    if "|" not in text and '"' not in text:
        return _COMMENT.sub("", text) if ";" in text else text
    if text.count("|") + text.count('"') > MAX_QUOTES:
        raise UserError(f"{name} is refused: it has over {MAX_QUOTES} bars and quotation marks; leave them out.")

    def replaced(match: re.Match[str]) -> str:
        token = match[0]
        if token[0] == ";":
            return ""
        if token[0] == "|" and _SIMPLE.fullmatch(token[1:-1]):
            return f" {token[1:-1]} "
        # Nothing may be found inside of it, and two of them may not become one.
        return f" {token[0]}{token[1:-1].encode('utf-8', 'surrogatepass').hex()}{token[0]} "

    return _QUOTED.sub(replaced, text)


def shown(expression: Expression, depth: int = 3) -> str:
    """Writes an expression for a message, shortened, without control characters."""
    if isinstance(expression, str):
        return shortened(expression, 60)
    if depth == 0:
        return "(...)"
    parts = [shown(part, depth - 1) for part in expression[:8]]
    text = f"({' '.join([*parts, '...'] if len(expression) > 8 else parts)})"
    return text if len(text) <= 80 else text[:77] + "..."


def expressions(text: str, name: str) -> list[Expression]:
    """Reads all parenthesised expressions of a text.

    Args:
        text: What `plain` returned.
        name: What to call the file in messages.

    Raises:
        UserError: Parentheses don't match, are nested too deeply, or there are too many tokens.
    """
    stack: list[list[Expression]] = [[]]
    for count, match in enumerate(_TOKEN.finditer(text)):
        word = match[0]
        if count >= MAX_TOKENS:
            raise UserError(
                f"{name} is refused: beside its plain bounds it has over {MAX_TOKENS} words and parentheses; write "
                "bounds as (assert (<= X_0 0.5)), or split the file."
            )
        if word == "(":
            stack.append([])
            if len(stack) > MAX_DEPTH:
                raise UserError(f"{name} is refused: its parentheses are nested over {MAX_DEPTH} deep; write it flat.")
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


def keyword(expression: Expression) -> str:
    """Returns the word that begins a list, in lower case; empty if there is none."""
    first = expression[0] if isinstance(expression, list) and expression else ""
    return first.lower() if isinstance(first, str) else ""


def script(statements: list[Expression], name: str) -> Iterator[Expression]:
    """Runs the commands of an SMT-LIB script: yields the statements that its one `check-sat` is about.

    Without a `check-sat` it is all of them. What was asserted within a `push` that was popped again is left out, and
    so is all that follows `exit`.

    Raises:
        UserError: A `pop` has no `push`.
        UnsupportedPropertyError: The file asks several questions, or one under further assumptions.
    """
    levels: list[list[Expression]] = [[]]
    answer: list[Expression] | None = None
    for statement in statements:
        match keyword(statement):
            case word if word in _IGNORED:
                continue
            case "exit":
                break
            case "check-sat":
                if answer is not None:
                    raise _several(name)
                answer = [kept for level in levels for kept in level]
            case "push" | "pop" as word:
                count = _levels(statement, name)
                if word == "push":
                    levels += [[] for _ in range(count)]
                elif count < len(levels):
                    del levels[len(levels) - count :]
                else:
                    raise UserError(f"{name} is no VNN-LIB file: {shown(statement)} has no push before it.")
            case "check-sat-assuming" | "reset" | "reset-assertions" as word:
                raise UnsupportedPropertyError(
                    f"{name} uses {word!r}; allowed is one question: assertions, and one (check-sat) if any."
                )
            case _:
                if answer is not None:
                    # Whether it was meant to count is not ours to guess.
                    raise _several(name)
                levels[-1].append(statement)
    yield from [kept for level in levels for kept in level] if answer is None else answer


def _levels(statement: Expression, name: str) -> int:
    """Returns how many levels a `push` or `pop` names."""
    match statement:
        case [_]:
            return 1
        case [_, str(number)] if re.fullmatch(r"[0-9]{1,3}", number):
            return int(number)
        case _:
            raise UserError(f"{name} is no VNN-LIB file: {shown(statement)} is not understood; allowed is (push 1).")


def _several(name: str) -> UnsupportedPropertyError:
    return UnsupportedPropertyError(
        f"{name} goes on after its (check-sat), so that it asks several questions; allowed is one: split the file."
    )
