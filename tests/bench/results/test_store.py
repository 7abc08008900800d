from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from prunecert.bench.results.decode import plain
from prunecert.bench.results.row_types import VerdictRow
from prunecert.bench.results.store import SCHEMA_VERSION, Log, Writer, is_run, verdict_fields
from prunecert.errors import UserError
from prunecert.verifiers.base import Status, Times, Verdict
from tests.bench import rowkit

SESSION = rowkit.typed({"type": "session"})


def row(number: int) -> VerdictRow:
    verdict: VerdictRow = rowkit.typed({"type": "verdict", "id": str(number), "detail": "ä\n\u2028" * (number % 7)})
    return verdict


def fill(folder: Path, count: int, writer: str = "main") -> Path:
    with Writer(folder, writer) as log:
        log.append(SESSION)
        for number in range(count):
            log.append(row(number))
    return log.path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    assert list(Log(tmp_path).rows()) == [SESSION, *(row(i) for i in range(10))]
    assert Log(tmp_path).sessions() == [SESSION]


@given(st.data())
@settings(deadline=None)
def test_a_file_cut_anywhere_keeps_its_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path = fill(folder, 6)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    log = Log(folder)
    assert list(log.rows()) == [SESSION, *(row(i) for i in range(6))][:whole]
    unfinished = content[:cut].rpartition(b"\n")[2]
    assert len(log.notes) == (1 if unfinished else 0)
    with Writer(folder) as again:
        assert again.cut == len(unfinished)
        if not whole:
            again.append(SESSION)
        again.append(row(99))
    assert len(list(Log(folder).rows())) == max(whole, 1) + 1
    assert Log(folder).notes == []


def test_an_unfinished_line_longer_than_a_block_is_cut_off(tmp_path: Path) -> None:
    path = fill(tmp_path, 1)
    size = path.stat().st_size
    with path.open("ab") as stream:
        stream.write(b"x" * 200_000)
    with Writer(tmp_path) as log:
        assert log.cut == 200_000
    assert path.stat().st_size == size


def test_damage_elsewhere_is_named_with_its_line(tmp_path: Path) -> None:
    path = fill(tmp_path, 5)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:3], b'{"type":"ver', *lines[3:]]))
    with pytest.raises(UserError, match=r"instances\.main\.jsonl, line 4: this is no JSON"):
        list(Log(tmp_path).rows())
    path.write_bytes(b"\n".join([*lines[:3], b"[1]", *lines[3:]]))
    with pytest.raises(UserError, match="line 4: a row must be an object"):
        list(Log(tmp_path).rows())
    # Two objects on a line, or half of one on each of two lines, are no JSON either, though the whole block is.
    path.write_bytes(b"\n".join([*lines[:3], lines[3] + b"," + lines[4], *lines[3:]]))
    with pytest.raises(UserError, match="line 4: this is no JSON"):
        list(Log(tmp_path).rows())
    path.write_bytes(b"\n".join([*lines[:3], lines[3] + b"," + lines[4][:-1], b',"c":1}', *lines[3:]]))
    with pytest.raises(UserError, match="line 4: this is no JSON"):
        list(Log(tmp_path).rows())


def test_files_that_do_not_begin_with_a_session_or_are_newer_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "instances.main.jsonl"
    path.write_text(msgspec.json.encode(row(1)).decode() + "\n")
    with pytest.raises(UserError, match="must begin with a session row"):
        list(Log(tmp_path).rows())
    with pytest.raises(UserError, match="must begin with a session row"):
        Log(tmp_path).sessions()
    path.write_text(json.dumps({**plain(SESSION), "schema_version": SCHEMA_VERSION + 1}) + "\n")
    with pytest.raises(UserError, match=r"newer than this program reads .*upgrade"):
        list(Log(tmp_path).rows())
    path.write_text(json.dumps({**plain(SESSION), "schema_version": "x"}) + "\n")
    with pytest.raises(UserError, match="no valid schema_version"):
        Log(tmp_path).sessions()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    with pytest.raises(UserError, match="holds no instances"):
        Log(tmp_path)
    with pytest.raises(UserError, match="no such directory"):
        Log(tmp_path / "nowhere")


def test_a_second_writer_is_kept_out_and_another_name_is_not(tmp_path: Path) -> None:
    with Writer(tmp_path) as first:
        with pytest.raises(UserError, match="is in use: another run is writing"):
            Writer(tmp_path)
        with Writer(tmp_path, "shard-1-of-2") as other:
            other.append(replace(SESSION, writer="shard-1-of-2"))
        first.append(SESSION)
    Writer(tmp_path).close()
    assert len(list(Log(tmp_path).rows())) == 2
    with pytest.raises(ValueError, match="writer name"):
        Writer(tmp_path, "../x")


def test_threads_may_write_together(tmp_path: Path) -> None:
    with Writer(tmp_path) as log:
        log.append(SESSION)

        def write() -> None:
            for number in range(200):
                log.append(row(number))

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(list(Log(tmp_path).rows())) == 801


def test_a_full_disk_leaves_whole_lines_and_ends_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Writer(tmp_path)
    log.append(SESSION, row(0))
    real = log._file

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def write(self, data: memoryview) -> int:
            if len(data) > 10:
                return real.write(bytes(data[:10])) or 0
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log, "_file", Full())
    with pytest.raises(OSError, match="No space left") as caught:
        log.append(row(1))
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        log.append(row(2))
    monkeypatch.undo()
    log.close()
    assert list(Log(tmp_path).rows()) == [SESSION, row(0)]


def test_counterexamples_are_stored_beside(tmp_path: Path) -> None:
    witness = np.random.default_rng(0).random((3, 4, 4), dtype=np.float32)
    with Writer(tmp_path) as log:
        log.append(SESSION)
        name = log.save_witness("abc", witness)
    assert np.array_equal(Log(tmp_path).witness(replace(row(1), witness=name)), witness)
    assert [path.name for path in (tmp_path / "witnesses").iterdir()] == ["abc.npy"]
    with pytest.raises(UserError, match="no readable counterexample"):
        Log(tmp_path).witness(replace(row(1), witness="witnesses/x.npy"))


def test_only_failures_keep_the_end_of_the_log() -> None:
    assert "log_tail" not in verdict_fields(Verdict(Status.TIMEOUT, "late", log_tail="x"))
    assert verdict_fields(Verdict(Status.ERROR, "died", log_tail="x" * 9000 + "y"))["log_tail"] == "x" * 1999 + "y"


def test_verdict_fields_are_lean_and_plain() -> None:
    verdict = Verdict(
        Status.UNKNOWN,
        bounds=(0.1234567890123, float("-inf")),
        times=Times(bound_s=0.123456789, wall_s=0.5),
        peak_memory_mb=1.26,
        version="1",
    )
    fields = verdict_fields(verdict)
    assert fields == {
        "status": "unknown",
        "bounds": [0.1234568, None],
        "times": {"bound_s": 0.123457, "wall_s": 0.5},
        "peak_memory_mb": 1.3,
        "batch": 1,
        "device": "cpu",
        "version": "1",
    }
    json.dumps(fields, allow_nan=False)
