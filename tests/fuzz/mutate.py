"""Changes of texts and of plain data, from a slip of the hand to malice."""

from __future__ import annotations

import random
import re
from typing import Any

#: Values that some reader somewhere takes for something else.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 10**400, -(10**30), 0.0, -0.5, 1e300, 1e-300),
    *(float("inf"), float("nan"), "", " ", "x", "0", "1e999", "nan", "2/255", "1e-99999999", "9" * 5000, "10**9999"),
    *("\x1b[2J", "a\n::error::b", "\u202e", "\ud800", "\x00", "$\\frac{1}{$", "x" * 100_000, "../../x", "/dev/zero"),
    *([], {}, [[]], {"": 1}, [None], {"a": {"a": {"a": {}}}}, [0] * 2000, "[/bold]", "_", "é", "\ufeff"),
)
SNIPPETS = (
    *("!!bool maybe", "!!int ''", "!!float x", "!!timestamp x", "!!binary x", "!!set {a}", "!!python/name:os.system"),
    *("&a [*a]", "*nowhere", "<<: *a", "? [a]: b", "{", "}", "[", "]", '"', "'", ":", "- ", "#", "|", ">", "%", "@"),
    *("9" * 400, "1e400", "0x" + "f" * 100, "1:" * 300, ".inf", ".nan", "1e-99999999", "[" * 1000, "{a: " * 500),
    *("\x1b[0m", "\x00", "\ufeff", "\u2028", "\t", "\r", "2024-01-01", "null", "~", "yes", "---", "...", "'1e-4'"),
    *("x" * 5000, "/" * 5000, "a/" * 3000, "[" + "1," * 30_000 + "]", "1.5", "-7", "0", "[1, 1]", "{}", "$x$"),
)


def text(rng: random.Random, source: str) -> str:
    """Returns a text with a place or a few changed."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.randrange(7)
        lines = source.split("\n")
        place = rng.randrange(len(lines))
        if kind == 0:  # A value is another.
            word = rng.choice(_words(source))
            source = source[: word.start()] + rng.choice(SNIPPETS) + source[word.end() :]
        elif kind == 1:  # A line twice, gone, or elsewhere.
            line = lines.pop(place)
            for _ in range(rng.randrange(3)):
                lines.insert(rng.randrange(len(lines) + 1), line)
            source = "\n".join(lines)
        elif kind == 2:  # Another indentation.
            lines[place] = " " * rng.randrange(8) + lines[place].lstrip()
            source = "\n".join(lines)
        elif kind == 3:  # Something in between.
            at = rng.randrange(len(source) + 1)
            source = source[:at] + rng.choice(SNIPPETS) + source[at:]
        elif kind == 4:  # Cut off.
            source = source[: rng.randrange(len(source) + 1)]
        elif kind == 5:  # A character is another.
            at = rng.randrange(len(source) + 1)
            source = source[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0x2100)))) + source[at + 1 :]
        else:  # A value is another of the file's.
            one, other = rng.choice(_words(source)), rng.choice(_words(source))
            source = source[: one.start()] + other[0] + source[one.end() :]
    return source


def _words(source: str) -> list[re.Match[str]]:
    """Returns the words of a text, or nothing's place in an empty one."""
    return list(re.finditer(r"[^\s:,\[\]{}]+", source)) or list(re.finditer("$", source))


def data(rng: random.Random, value: Any) -> Any:
    """Changes plain data in one to three places, and returns it."""
    for _ in range(rng.randint(1, 3)):
        value = _one(rng, value)
    return value


def _one(rng: random.Random, root: Any) -> Any:
    holder: Any = None
    key: Any = None
    place = root
    # A random way down; long ones are as likely as short ones.
    while isinstance(place, dict | list) and place and (holder is None or rng.random() < 0.75):
        holder = place
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        place = place[key]
    if holder is None:
        return rng.choice(ODD)
    kind = rng.randrange(5)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(["x", "\x1b[2J\n::error::y", "k" * 300, "", str(key) + "_"])] = place
    elif kind == 2 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), rng.choice([place, rng.choice(ODD)]))
    elif kind == 3 and isinstance(place, int | float) and not isinstance(place, bool):
        holder[key] = rng.choice([place + 1, -place, place * 1e6, float(place), 10**400, str(place)])
    else:
        holder[key] = rng.choice(ODD)
    return root
