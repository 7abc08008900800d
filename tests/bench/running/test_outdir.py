from __future__ import annotations

import errno
from pathlib import Path

import pytest

from prunecert.bench.running.outdir import writing
from prunecert.errors import UserError


def test_the_folder_is_there_before_the_work_and_stays_with_what_is_written(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with writing(out):
        assert out.is_dir()
        (out / "row").write_text("x")
    assert [path.name for path in out.iterdir()] == ["row"], "nothing is left of the attempt to write"


def test_bad_input_takes_an_empty_new_folder_away_and_no_other(tmp_path: Path) -> None:
    def refuse(out: Path, name: str | None = None) -> None:
        def work() -> None:
            with writing(out):
                if name is not None:
                    (out / name).write_text("x")
                raise UserError("bad")

        with pytest.raises(UserError, match="bad"):
            work()

    refuse(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    refuse(tmp_path / "kept", "row")
    assert (tmp_path / "kept" / "row").is_file()
    (tmp_path / "old").mkdir()
    refuse(tmp_path / "old")
    assert (tmp_path / "old").is_dir()


def test_what_the_file_system_refuses_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("n" * 5_000)):
        with pytest.raises(UserError) as error, writing(out):
            pytest.fail("there is nothing to write into")
        assert "\n" not in str(error.value)


def test_a_full_disk_later_on_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="out") as error, writing(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "the disk is full" in str(error.value)


def test_other_faults_go_their_way(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "out"):
        raise ZeroDivisionError
    assert (tmp_path / "out").is_dir()
