from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench import unpack
from prunecert.bench.running import packing
from prunecert.errors import UserError
from tests.bench.packkit import DENSE, Steps, pack, train, use_blobs


def test_options_reach_the_taking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_blobs(monkeypatch)
    monkeypatch.setattr(packing, "code_archive", lambda: b"code")
    lease = pack(tmp_path, cells=DENSE)
    train(lease, tmp_path / "results", Steps(1))
    command = ["--pack", str(lease / "pack.json"), "--out", str(tmp_path / "here")]
    assert unpack.main([str(tmp_path / "results" / f"{DENSE}.work.tar"), *command]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{DENSE}.work.tar: unfinished, ")
    assert (second, third) == (f"0 of 1 cells of the pack are in {tmp_path / 'here'}.", f"missing: {DENSE}")
    with pytest.raises(UserError, match=r"there is no \.tar file in it"):
        unpack.main([str(lease), *command, "--force"])
