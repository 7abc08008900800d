"""Keeps compiled kernels apart by the sources that they were compiled from.

Numba compiles anew when the file of a function changes, but not when that of a function or an intrinsic which it calls
does. An old kernel that calls an old rounding rule would go on giving its bounds, so every state of the sources
that kernels are made of has a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from pathlib import Path

_VARIABLE = "NUMBA_CACHE_DIR"
_PREFIX = "sparse-"


def folder(package: Path, given: str) -> Path:
    """Returns where compiled kernels are kept.

    Args:
        package: The folder of the sources.
        given: What NUMBA_CACHE_DIR says: the folder to keep them in, or one that this function has chosen in it, or
            nothing for one beside the sources.
    """
    texts = {source.stem: source.read_bytes() for source in package.glob("*.py")}
    compiled = {name for name, text in texts.items() if b"numba" in text or b"llvmlite" in text}
    # Constants of what these import are compiled, too.
    read = {match.decode() for name in compiled for match in re.findall(rb"verifiers\.sparse\.(\w+)", texts[name])}
    digest = hashlib.sha256()
    for name in sorted(compiled | (read & texts.keys())):
        digest.update(name.encode() + b"\0" + texts[name] + b"\0")
    if given:
        base = Path(given)
        base = base.parent if base.name.startswith(_PREFIX) else base
    elif os.access(package, os.W_OK):
        base = package / "__pycache__"
    else:
        base = Path(tempfile.gettempdir()) / f"prunecert-{os.getuid()}"
    return base / f"{_PREFIX}{digest.hexdigest()[:16]}"


def separate() -> None:
    """Has Numba, whether it is imported yet or not, keep the kernels that are declared from now on in their folder."""
    chosen = str(folder(Path(__file__).parent, os.environ.get(_VARIABLE, "")))
    os.environ[_VARIABLE] = chosen
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = chosen
