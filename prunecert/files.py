"""Names of files that are about to become others."""

from __future__ import annotations

import os
import platform
import secrets
from pathlib import Path


def scratch_beside(path: Path) -> Path:
    """Returns a name beside `path` that no other process uses, on whatever machine that shares the folder.

    What is written there and then moved to `path` appears whole or not at all, however many processes write it.

    Args:
        path: What the file will be called.
    """
    host = "".join(c if c.isalnum() else "-" for c in platform.node())
    return path.with_name(f".{path.name}.{host}.{os.getpid()}.part")


def write_bytes(path: Path, data: bytes) -> Path:
    """Writes a file whole or not at all, and returns its path.

    Two processes that write it at once, or two threads, each write their own scratch file; the last one stays.

    Args:
        path: The file; its folder is there.
        data: What it will hold.
    """
    # Without the file's own name, which may be as long as names can be.
    scratch = path.with_name(f".{os.getpid()}.{secrets.token_hex(8)}.part")
    try:
        scratch.write_bytes(data)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """Writes a text file in UTF-8 whole or not at all, and returns its path; see `write_bytes`."""
    return write_bytes(path, text.encode(errors="backslashreplace"))
