"""What is read: whole files of bounded size, and certificates as streams of little-endian arrays of bounded size."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

#: How a certificate begins: magic, version, answer (0 unsat, 1 sat), SHA-256 of network and of property.
HEAD = struct.Struct("<8sHB32s32s")
MAGIC, VERSION = b"PRUNCERT", 1
#: Bytes: of a file, of one array in a certificate, of all that a certificate unpacks to, of one step of reading.
LARGEST_FILE, LARGEST_ARRAY, LARGEST_CONTENT, _STEP = 2**30, 2**26, 2**33, 2**16


class UnreadableError(ValueError):
    """A file is damaged, too large, or holds what isn't taken; nothing is said about the proof (exit code 2)."""


class RefusedError(ValueError):
    """The certificate doesn't prove what it claims about this network and this property (exit code 1)."""


def need(holds: Any, what: str, error: type[ValueError] = UnreadableError) -> None:
    """Refuses what is read, or a proof, unless a condition holds."""
    if not holds:
        raise error(what)


def read(path: Path, largest: int = LARGEST_FILE) -> bytes:
    """Returns a file's content, unpacked if it is gzipped."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        content = (gzip.GzipFile(fileobj=file) if packed else file).read(largest + 1)
    need(len(content) <= largest, f"{path.name} holds more than {largest} bytes")
    return content


class Stream:
    """A certificate: `HEAD`, then one zlib stream of arrays whose kinds and lengths follow from what came before."""

    def __init__(self, file: BinaryIO) -> None:
        start = file.read(HEAD.size)
        need(start[: len(MAGIC)] == MAGIC, "the file is no certificate: it begins otherwise")
        need(len(start) == HEAD.size, "the certificate is cut off")
        _, version, self.answer, self.network, self.property = HEAD.unpack(start)
        need(version == VERSION, f"the certificate is of version {version}; this checker reads version {VERSION}")
        self._file, self._unpack, self._ready, self._total = file, zlib.decompressobj(), bytearray(), 0

    def _fill(self, size: int) -> bool:
        while len(self._ready) < size:
            more = self._unpack.unconsumed_tail or self._file.read(_STEP)
            if not more:
                return False
            self._ready += self._unpack.decompress(more, 16 * _STEP)
        return True

    def take(self, kind: str, count: int = 1) -> Any:
        """Returns the next `count` numbers of a NumPy kind, such as ``"<f4"``."""
        size = np.dtype(kind).itemsize * count
        self._total += size
        need(0 <= size <= LARGEST_ARRAY, f"the certificate holds an array of {count} numbers")
        need(self._total <= LARGEST_CONTENT, f"the certificate holds more than {LARGEST_CONTENT} bytes")
        need(self._fill(size), "the certificate is cut off")
        part = bytes(self._ready[:size])
        del self._ready[:size]
        return np.frombuffer(part, dtype=kind)

    def end(self) -> None:
        """Refuses what comes after the end, and a wrong checksum."""
        whole = not self._fill(1) and self._unpack.eof and not self._unpack.unused_data
        need(whole, "the certificate goes on, or is cut off")
