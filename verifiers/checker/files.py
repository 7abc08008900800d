"""What is read: whole files of bounded size, and certificates as streams of little-endian arrays of bounded size."""

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
LARGEST_FILE, LARGEST_ARRAY, LARGEST_CONTENT, _STEP = 2**30, 2**26, 2**33, 2**12


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
    with gzip.open(path) if packed else path.open("rb") as file:
        content = file.read(largest + 1)
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
        self._file, self._unpack, self._left = file, zlib.decompressobj(), LARGEST_CONTENT

    def _more(self, most: int) -> bytes:
        """Unpacks up to so many bytes; what is packed and not needed for them, or after their end, is left."""
        packed = self._unpack.unconsumed_tail or self._file.read(0 if self._unpack.eof else _STEP)
        content = self._unpack.decompress(packed, most)
        need(packed or content, "the certificate is cut off")
        return content

    def take(self, kind: str, count: int = 1) -> Any:
        """Returns the next `count` numbers of a NumPy kind, such as ``"<f4"``."""
        size, content = np.dtype(kind).itemsize * count, bytearray()
        need(0 <= size <= LARGEST_ARRAY, f"the certificate holds an array of {count} numbers")
        self._left -= size
        need(self._left >= 0, f"the certificate holds more than {LARGEST_CONTENT} bytes")
        while len(content) < size:
            content += self._more(size - len(content))
        return np.frombuffer(bytes(content), dtype=kind)

    def end(self) -> None:
        """Refuses what comes after the end, and a wrong checksum."""
        while not self._unpack.eof:
            need(not self._more(1), "the certificate goes on")
        need(not self._unpack.unused_data and not self._file.read(1), "the certificate goes on")
