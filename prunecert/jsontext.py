"""Reading foreign JSON: plain data within bounds, or one sentence."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from prunecert.files import read_regular

#: Characters of a number: 64-bit integers and any float's shortest form are shorter.
LONGEST_NUMBER = 40
#: Lists and objects within each other. Python's own limit on recursion is no limit to rely on: auto_LiRPA sets it to a
#: million, beyond which the parser's stack ends in a segmentation fault.
DEEPEST = 900
#: Texts, which are skipped, and brackets. A text that doesn't end runs to the end of the file.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?:"|$)|[\[\]{}]', re.DOTALL)


def parse_json(data: bytes) -> Any:
    """Returns what a JSON text holds.

    Args:
        data: UTF-8, with a byte-order mark or without.

    Raises:
        ValueError: It is no JSON, no UTF-8, nested thousands deep, or holds a number that is infinite, NaN or of more
            than `LONGEST_NUMBER` characters; the message says so in a few words.

    >>> parse_json(b'{"bounds": [0.5, 1]}')
    {'bounds': [0.5, 1]}
    >>> parse_json(b"[NaN]")
    Traceback (most recent call last):
    ValueError: it holds NaN, which is no number in JSON
    """
    text = data.decode("utf-8-sig")
    refuse_depth(text)
    try:
        return json.loads(text, parse_int=_whole, parse_float=_real, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested thousands of levels deep") from None


def read_json(path: Path, most: int) -> Any:
    """Returns what a JSON file holds.

    Args:
        path: A plain file.
        most: Bytes that it may have.

    Raises:
        UserError: See `prunecert.files.read_regular`.
        ValueError: See `parse_json`.
    """
    return parse_json(read_regular(path, most))


def refuse_depth(text: str) -> None:
    """Refuses a JSON text whose lists and objects lie too deep within each other for a parser's stack.

    Raises:
        ValueError: They do.
    """
    if _depth(text) > DEEPEST:
        raise ValueError("it is nested thousands of levels deep")


def _depth(text: str) -> int:
    """Returns how deep lists and objects lie within each other; of few opening brackets, their number."""
    opening = text.count("[") + text.count("{")
    if opening <= DEEPEST:
        return opening
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"it holds a number of {len(text):,} digits")
    return int(text)


def _real(text: str) -> float:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"it holds a number of {len(text):,} digits")
    if not math.isfinite(float(text)):
        raise ValueError(f"it holds {text}, which is beyond a float")
    return float(text)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no number in JSON")
