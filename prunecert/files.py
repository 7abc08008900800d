"""Names of files that are about to become others."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def scratch_beside(path: Path) -> Path:
    """Returns a name beside `path` that no other process uses, on whatever machine that shares the folder.

    What is written there and then moved to `path` appears whole or not at all, however many processes write it.

    Args:
        path: What the file will be called.
    """
    host = "".join(c if c.isalnum() else "-" for c in platform.node())
    return path.with_name(f".{path.name}.{host}.{os.getpid()}.part")
