from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench import pack
from prunecert.bench.running import packing
from prunecert.bench.running.pack_manifest import read_manifest
from prunecert.errors import UserError
from tests.bench.packkit import DENSE, SUITE, use_blobs


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    use_blobs(monkeypatch)
    monkeypatch.setattr(packing, "code_archive", lambda: b"code")
    (tmp_path / "lease.yaml").write_text(SUITE)
    paths = {"--suite": tmp_path / "lease.yaml", "--checkpoints": tmp_path / "zoo", "--out": tmp_path / "lease"}
    return [word for key, path in paths.items() for word in (key, str(path))]


def test_options_reach_the_pack(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--cells", "*dense*", "--subset", "9", "--budget", "25m", "--device", "cuda:1", "--limit", "2"]
    assert pack.main([*command, *options, "--piece", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "1 cells, 0 trained already, 1 to pack.\nPacking 9 training images and 9 held-out ones.\nThe pack has "
    )
    assert printed.endswith(f" results --out {tmp_path / 'zoo'}\n"), "they came from there"
    lease = tmp_path / "lease"
    manifest = read_manifest(lease)
    assert (list(manifest.cells), manifest.images["train"]) == ([DENSE], 9)
    text = (lease / "run.sh").read_text()
    assert '--device "${DEVICE:-cuda:1}" --budget "${BUDGET:-25m}" --subset 9' in text
    assert max(file.stat().st_size for file in lease.iterdir()) == 50_000


@pytest.mark.parametrize(
    ("option", "message"),
    [("--limit", "0"), ("--piece", "-1"), ("--limit", "much"), ("--subset", "0")],
)
def test_numbers_that_make_no_sense_are_refused(
    command: list[str], option: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        pack.main([*command, option, message])
    assert error.value.code == 2
    assert "is refused; it must be a " in capsys.readouterr().err


def test_a_limit_is_in_megabytes(command: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--limit allows 0\.1 MB"):
        pack.main([*command, "--limit", "0.1"])
    with pytest.raises(UserError, match=r"--budget 'soon' is refused"):
        pack.main([*command, "--budget", "soon"])
    assert not (tmp_path / "lease").exists()
