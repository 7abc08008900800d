"""Makes valid VNN-LIB files of many kinds, and breaks them in many ways."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable

_NUMBERS = ["0", "1", "-1", "0.5", "0.1", "-0.25", "2", "1e-3", ".5", "1.", "(- 0.5)", "(/ 1 3)", "(/ 1 4)", "3.25"]
_EXTREMES = [
    "1e308", "-1e308", "1e309", "1e-320", "1e-400", "5e-324", "1e39", "1e-46", "9007199254740993", "nan", "inf", "-0.0",
    "1_0", "0x10", "٣", "1" * 400, "1" * 5000, "0." + "0" * 400 + "1", "1e999999999999", "+5", "--1", "1.2.3",
]  # fmt: skip


class Maker:
    """Writes random properties.

    Args:
        draw: Chooses.
        version: ``"1.0"`` or ``"2.0"``.
    """

    def __init__(self, draw: random.Random, version: str) -> None:
        self.draw = draw
        self.version = version
        self.inputs, self.outputs = draw.randint(1, 3), draw.randint(1, 3)
        self.letters = draw.choice(["XY", "XY", "xy"]) if version == "1.0" else draw.choice(["XY", "ab"])
        self.words: list[str] = []

    def name(self, letter: int, index: int) -> str:
        """Returns a variable's name."""
        return f"{self.letters[letter]}_{index}" if self.version == "1.0" else f"{self.letters[letter]}[0,{index}]"

    def output(self) -> str:
        """Returns a term over outputs."""
        kind = self.draw.randrange(8)
        y = self.name(1, self.draw.randrange(self.outputs))
        if kind < 4:
            return y
        if kind == 4:
            return f"(* {self.draw.choice(_NUMBERS)} {y})"
        if kind == 5 and self.words:
            return self.draw.choice(self.words)
        if kind == 6:
            return self.draw.choice(_NUMBERS)
        return f"({self.draw.choice('+-')} {self.output()} {self.output()})"

    def comparison(self) -> str:
        """Returns a comparison of outputs, or a bound of an input."""
        operator = self.draw.choice(["<=", ">=", "<", ">", "=", "distinct", "<=", ">="])
        if self.draw.random() < 0.3:
            x = self.name(0, self.draw.randrange(self.inputs))
            return f"({operator} {x} {self.draw.choice(_NUMBERS)})"
        return f"({operator} {self.output()} {self.output()})"

    def formula(self, depth: int) -> str:
        """Returns a formula."""
        kind = self.draw.randrange(9) if depth else 0
        if kind < 3:
            return self.comparison() if self.draw.random() < 0.9 else self.draw.choice(["true", "false"])
        parts = [self.formula(depth - 1) for _ in range(self.draw.randint(1, 3))]
        if kind in (3, 4):
            return f"(and {' '.join(parts)})"
        if kind in (5, 6):
            return f"(or {' '.join(parts)})"
        if kind == 7:
            return self.draw.choice(
                [f"(not {parts[0]})", f"(=> {parts[0]} {parts[-1]})", f"(xor {parts[0]} {parts[-1]})"]
            )
        word = f"v{self.draw.randrange(100)}"
        return f"(let (({word} {self.output()})) (or (<= {word} {self.draw.choice(_NUMBERS)}) {parts[0]}))"

    def text(self) -> str:
        """Returns a file's text."""
        draw = self.draw
        lines = []
        if self.version == "1.0":
            if draw.random() < 0.3:
                lines.append(
                    draw.choice(["(set-logic QF_LRA)", "(set-info :source |a (b) ; c|)", "(vnnlib-version <1.0>)"])
                )
            lines += [f"(declare-const {self.name(0, i)} Real)" for i in range(self.inputs)]
            lines += [f"(declare-fun {self.name(1, i)} () Real)" for i in range(self.outputs)]
        else:
            if draw.random() < 0.7:
                lines.append("(vnnlib-version <2.0>)")
            shapes = [f"[1, {self.inputs}]", f"[1,{self.outputs}]"]
            lines.append(
                f"(declare-network N (declare-input {self.letters[0]} float32 {shapes[0]}) "
                f"(declare-output {self.letters[1]} float32 {shapes[1]}))"
            )
        for i in range(self.inputs):
            low = draw.choice([0, -1, 0.1, 0.25])
            lines.append(f"(assert ({draw.choice(['>=', '>=', '>'])} {self.name(0, i)} {low}))")
            lines.append(
                f"(assert ({draw.choice(['<=', '<=', '<'])} {self.name(0, i)} {low + draw.choice([0, 0.5, 1])}))"
            )
        if draw.random() < 0.4:
            lines.append(f"(define-fun m () Real {self.output()})")
            self.words.append("m")
        if draw.random() < 0.2:
            lines.append("(define-fun f ((p Real) (q Real)) Real (- p (* 2 q)))")
            self.words.append(f"(f {self.name(1, 0)} 1)")
        if draw.random() < 0.2:
            lines += ["(push 1)", f"(assert {self.formula(1)})", "(pop 1)"]
        lines += [f"(assert {self.formula(3)})" for _ in range(draw.randint(0, 3))]
        if draw.random() < 0.3:
            lines += ["(check-sat)", "(get-model)", "(exit)"]
        if draw.random() < 0.2:
            lines.insert(draw.randrange(len(lines)), f"; a comment (assert (<= {self.name(0, 0)} -9))")
        return "\n".join(lines) + "\n"


_SPELLINGS = [
    ("X_0", "x_0"), ("Y_0", "Y_00"), ("Y_0", "|Y_0|"), ("_1", "_" + "1" * 30), ("Real", "Int"), ("Real", "real"),
    ("assert", "ASSERT"), ("<=", "≤"), ("<=", "<"), ("and", "or"), ("Y", "X"), ("2.0", "3.0"), ("1", "1e11"),
]  # fmt: skip
_LETTERS = ["\x1b[31m", "\x00", "é", "|", '"', ";", "(", ")", "\r", "\u2028", " ", "[", "]"]


def _tokens(text: str) -> list[str]:
    return text.replace("(", " ( ").replace(")", " ) ").split(" ")


def _drop(text: str, draw: random.Random) -> str:
    words = _tokens(text)
    del words[draw.randrange(len(words))]
    return " ".join(words)


def _double(text: str, draw: random.Random) -> str:
    words = _tokens(text)
    i = draw.randrange(len(words))
    return " ".join([*words[:i], words[i], *words[i:]])


def _swap(text: str, draw: random.Random) -> str:
    words = _tokens(text)
    i, j = draw.randrange(len(words)), draw.randrange(len(words))
    words[i], words[j] = words[j], words[i]
    return " ".join(words)


def _shuffle(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    draw.shuffle(lines)
    return "\n".join(lines)


def _extreme(text: str, draw: random.Random) -> str:
    words = _tokens(text)
    places = [i for i, word in enumerate(words) if word[:1].isdigit() or word[:1] in "-."] or [0]
    words[draw.choice(places)] = draw.choice(_EXTREMES)
    return " ".join(words)


def _spelling(text: str, draw: random.Random) -> str:
    old, new = draw.choice(_SPELLINGS)
    return text.replace(old, new, draw.choice([1, 2, -1]))


def _letter(text: str, draw: random.Random) -> str:
    i = draw.randrange(len(text))
    return text[:i] + draw.choice(_LETTERS) + text[i:]


def _cut(text: str, draw: random.Random) -> str:
    return text[: draw.randrange(len(text))]


def _nest(text: str, draw: random.Random) -> str:
    depth = draw.choice([30, 1_000, 20_000])
    head = draw.choice(["(and ", "(or ", "(not ", "(- ", "(+ ", "(", "(! ", "(let ((a true)) "])
    body = draw.choice(["(<= Y_0 0)", "true", "Y_0", "1"])
    return f"{text}\n(assert {head * depth}{body}{')' * depth})"


def _ends(text: str, draw: random.Random) -> str:
    return draw.choice(["\ufeff", ""]) + text.replace("\n", draw.choice(["\r\n", "\r", " ", "\n\n"]))


_MUTATIONS: list[Callable[[str, random.Random], str]] = [
    _drop, _double, _swap, _shuffle, _extreme, _spelling, _letter, _cut, _nest, _ends,
]  # fmt: skip


def property_text(draw: random.Random) -> str:
    """Returns a file's text, valid or broken up to three times."""
    text = Maker(draw, draw.choice(["1.0", "1.0", "2.0"])).text()
    for _ in range(draw.choice([0, 1, 1, 2, 3])):
        text = draw.choice(_MUTATIONS)(text, draw) or "()"
    return text


def packed(text: str, draw: random.Random) -> bytes:
    """Returns a file's bytes: plain, gzipped, or damaged."""
    raw = text.encode("utf-8", "surrogatepass")
    match draw.randrange(12):
        case 0:
            return gzip.compress(raw, mtime=0)
        case 1:
            return gzip.compress(raw, mtime=0)[: draw.randrange(1, 60)]
        case 2:
            data = bytearray(gzip.compress(raw, mtime=0))
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            return bytes(data)
        case 3:
            return text.encode("utf-16", "surrogatepass")
        case 4:
            return raw + bytes([0xFF, 0xFE])
        case _:
            return raw
