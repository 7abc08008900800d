"""Content hashes: of files, and of plain data in a canonical JSON form."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(data: Any) -> str:
    """Returns `data` as JSON with sorted keys and no white space; NaN and infinity are refused.

    >>> canonical_json({"b": [1, 2.5], "a": None})
    '{"a":null,"b":[1,2.5]}'
    """
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(data: Any) -> str:
    """Returns the SHA-256 of `data` in canonical JSON, as 64 hex digits.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    >>> digest([])[:12]
    '4f53cda18c2b'
    """
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()
