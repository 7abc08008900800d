from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.checker.files import HEAD, LARGEST_ARRAY, MAGIC, VERSION, Stream, UnreadableError, read


def stream(body: bytes, tail: bytes = b"") -> Stream:
    return Stream(io.BytesIO(HEAD.pack(MAGIC, VERSION, 0, bytes(32), bytes(32)) + zlib.compress(body) + tail))


def test_arrays_are_read_one_after_the_other() -> None:
    file = stream(np.arange(3, dtype="<f4").tobytes() + b"\x05\x00\x00\x00")
    assert file.take("<f4", 3).tolist() == [0.0, 1.0, 2.0]
    assert file.take("<u4").tolist() == [5]
    assert file.take("<u4", 0).tolist() == []
    file.end()


def test_content_of_many_steps_is_read_whole() -> None:
    values = np.random.default_rng(0).integers(2**32, size=400_000).astype("<u4")
    file = stream(values.tobytes())
    assert np.array_equal(file.take("<u4", 1000), values[:1000])
    assert np.array_equal(file.take("<u4", 399_000), values[1000:])
    file.end()


@pytest.mark.parametrize("count", [-1, LARGEST_ARRAY // 4 + 1, 2**62])
def test_sizes_are_refused_before_anything_is_read(count: int) -> None:
    with pytest.raises(UnreadableError, match="holds an array"):
        stream(b"").take("<f4", count)


@pytest.mark.slow
def test_a_bomb_is_unpacked_no_further_than_it_is_asked_for() -> None:
    raw = io.BytesIO(HEAD.pack(MAGIC, VERSION, 0, bytes(32), bytes(32)) + zlib.compress(bytes(200 * 2**20)))
    file = Stream(raw)
    assert not file.take("u1", 10).any()
    assert raw.tell() < 2**14 < len(raw.getvalue())


def test_what_is_unpacked_in_small_parts_is_whole_though_the_file_is_read() -> None:
    """A file of one step holds much; its end is told from a part that is left inside of what unpacks."""
    values = np.arange(200_000, dtype="<u4") // 50_000
    file = stream(values.tobytes())
    parts = [file.take("<u4", 500) for _ in range(400)]
    assert np.array_equal(np.concatenate(parts), values)
    file.end()


def test_all_content_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunecert.verifiers.checker.files.LARGEST_CONTENT", 100)
    file = stream(bytes(200))
    file.take("u1", 60)
    with pytest.raises(UnreadableError, match="more than 100 bytes"):
        file.take("u1", 60)


@pytest.mark.parametrize(("body", "tail"), [(b"abc", b""), (b"ab", b"c")])
def test_an_end_is_the_end(body: bytes, tail: bytes) -> None:
    file = stream(body, tail)
    file.take("u1", 2)
    with pytest.raises(UnreadableError, match="goes on"):
        file.end()


def test_a_wrong_checksum_is_seen() -> None:
    content = HEAD.pack(MAGIC, VERSION, 0, bytes(32), bytes(32)) + zlib.compress(b"ab")
    file = Stream(io.BytesIO(content[:-1] + bytes([content[-1] ^ 1])))

    def whole() -> None:
        file.take("u1", 2)
        file.end()

    with pytest.raises(zlib.error):
        whole()


def test_what_follows_the_end_is_not_read() -> None:
    """It would be copied again with every step: 14 hours for a gigabyte."""
    raw = io.BytesIO(HEAD.pack(MAGIC, VERSION, 0, bytes(32), bytes(32)) + zlib.compress(b"") + bytes(2**20))
    with pytest.raises(UnreadableError, match="cut off"):
        Stream(raw).take("u1", 1)
    assert raw.tell() < 2**14


def test_files_are_unpacked_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    assert read(path, 10) == b"x" * 10
    path.write_bytes(gzip.compress(b"x" * 10))
    assert read(path, 10) == b"x" * 10
    with pytest.raises(UnreadableError, match="more than 9 bytes"):
        read(path, 9)
