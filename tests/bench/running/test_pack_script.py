"""run.sh uses nothing before all of it is there, says what lacks, and trains with what it asks for and nothing else."""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from prunecert.bench.running import packing
from prunecert.bench.running.pack_script import NEEDS, script
from prunecert.bench.running.unpacking import UnpackRequest, take_archives
from tests import house
from tests.bench.packkit import PRUNED, pack, run, use_blobs

#: What the package needs for verifying, and a training must do without.
NOT_NEEDED = ("numba", "onnx", "onnxruntime", "scipy", "rich", "jinja2", "torchvision", "foolbox", "sklearn")


@pytest.fixture(scope="module")
def lease(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a pack in pieces, without code; no test may change it."""
    with pytest.MonkeyPatch.context() as patch:
        use_blobs(patch)
        patch.setattr(packing, "code_archive", lambda: b"")
        return pack(tmp_path_factory.mktemp("pack"), piece=100_000)


@pytest.fixture
def there(lease: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lease, tmp_path / "there"))


def python(folder: Path, *words: str) -> str:
    """Returns an interpreter that has other options."""
    file = folder / "python"
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" {" ".join(words)} "$@"\n')
    file.chmod(0o755)
    return str(file)


def test_what_it_needs_is_needed_by_the_package() -> None:
    project = tomllib.loads((house.ROOT / "pyproject.toml").read_text())["project"]
    direct = {text.partition(">")[0] for text in project["dependencies"]}
    # Pillow comes with matplotlib.
    assert set(NEEDS.values()) - {"pillow"} <= direct


def test_words_of_others_are_quoted() -> None:
    text = script(suite="a b.yaml", cells=["x;y", "z"], subset=3, budget="25m", device="cpu", code="c0de")
    assert " --suite 'a b.yaml' --cells 'x;y,z' " in text
    assert '--budget "${BUDGET:-25m}" --subset 3 "$@"' in text
    assert "@" not in text.replace('"$@"', "")


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_pack_that_did_not_come_whole_is_refused_and_goes_on_when_the_rest_is_there(
    there: Path, tmp_path: Path, damage: str
) -> None:
    piece = there / "data.packed.piece001"
    data = piece.read_bytes()
    piece.write_bytes({"missing": b"", "cut": data[:-1], "other": b"\0" + data[1:]}[damage])
    if damage == "missing":
        piece.unlink()
    result = run(there, OUT=str(tmp_path / "out"), PYTHON="false")
    assert result.returncode == 2
    assert "error: a file of the pack is missing or was cut off on the way; bring it here again." in result.stderr
    assert not (there / "code").exists()
    piece.write_bytes(data)
    result = run(there, OUT=str(tmp_path / "out"), PYTHON="false")
    # Now it comes to the interpreter; there is no code in this pack.
    assert "is missing or was cut off" not in result.stderr


def test_an_interpreter_that_lacks_something_is_refused_before_anything_starts(there: Path, tmp_path: Path) -> None:
    # Without code there is nothing to unpack; the empty archive that tar takes is two blocks of zeros.
    (there / "code.tar.gz").unlink()
    shutil.make_archive(str(there / "code"), "gztar", tmp_path, ".")
    sums = (there / "SHA256SUMS").read_text().splitlines(keepends=True)
    (there / "SHA256SUMS").write_text("".join(line for line in sums if "code.tar.gz" not in line))
    result = run(there, OUT=str(tmp_path / "out"), PYTHON="false")
    assert (result.returncode, result.stderr) == (
        2,
        "error: false is older than 3.11; name a newer one: PYTHON=python3.12 bash run.sh\n",
    )
    bare = python(tmp_path, "-S", "-I")
    result = run(there, OUT=str(tmp_path / "out"), PYTHON=bare)
    names = " ".join(NEEDS.values())
    assert result.returncode == 2
    assert result.stderr == f"error: {bare} lacks {names}; run: {bare} -m pip install {names} (or pack with --wheels)\n"


@pytest.mark.slow
def test_it_trains_elsewhere_with_what_it_asks_for_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_blobs(monkeypatch)
    lease = pack(tmp_path, piece=400_000, subset=20, cells=PRUNED)
    blocked = tmp_path / "blocked"
    for name in NOT_NEEDED:
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('this machine lacks it')\n")
    variables = {"OUT": str(tmp_path / "results"), "PYTHONPATH": str(blocked), "DEVICE": "cpu", "BUDGET": "9m"}
    result = run(lease, "--threads", "1", PYTHON=sys.executable, **variables)
    assert result.returncode == 0, result.stderr
    assert "1 cells, 0 trained already, 1 to train." in result.stdout
    assert not list(lease.glob("*.piece*"))
    lines: list[str] = []
    take_archives(UnpackRequest(pack=lease, archives=[tmp_path / "results"], out=tmp_path / "zoo"), lines.append)
    assert lines[-1] == f"1 of 1 cells of the pack are in {tmp_path / 'zoo'}."
    assert {file.stem for file in (tmp_path / "zoo").glob("*.json")} == {PRUNED}
