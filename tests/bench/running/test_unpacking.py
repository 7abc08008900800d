"""What comes back is taken if it is the pack's and whole; and trainings go on from machine to machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prunecert.bench.running import packing
from prunecert.bench.running.cell_archives import Label, read_archive, write_archive
from prunecert.bench.running.pack_manifest import read_manifest, write_manifest
from prunecert.bench.running.training_cells import train_cells
from prunecert.bench.running.unpacking import UnpackRequest, take_archives
from prunecert.errors import UserError
from prunecert.models.checkpoint import load_card, load_model
from prunecert.models.checkpoint_folders import ZOO
from prunecert.models.history import read_history
from prunecert.models.pipeline import exclusive
from tests.bench.conftest import without_drawing
from tests.bench.packkit import DENSE, PRUNED, Steps, pack, train, training, use_blobs


@pytest.fixture(scope="module", autouse=True)
def data() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        use_blobs(patch)
        # Nothing of it is run here.
        patch.setattr(packing, "code_archive", lambda: b"")
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a pack, ``lease``, and what was fetched of it, ``results``; no test may change it."""
    folder = tmp_path_factory.mktemp("place")
    with without_drawing():
        train(pack(folder), folder / "results")
    return folder


def take(place: Path, out: Path, *archives: Path, **changes: Any) -> list[str]:
    lines: list[str] = []
    request = UnpackRequest(pack=place / "lease", archives=archives or (place / "results",), out=out, **changes)
    take_archives(request, lines.append)
    return lines


def test_cells_are_taken_once_and_again_without_harm(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    lines = take(place, out)
    assert [line.partition(": ")[0] for line in lines[:-1]] == [
        "cnn-small_natural_2-255_s0_" + lines[0][27:39] + ".work.tar",
        f"{DENSE}.tar",
        f"{PRUNED}.tar",
    ]
    assert lines[1].startswith(f"{DENSE}.tar: taken; held-out images: clean ")
    assert lines[-1] == f"2 of 2 cells of the pack are in {out}."
    there = place / "lease" / "checkpoints"
    for name in (DENSE, PRUNED):
        for suffix in (".safetensors", ".json", ".history.jsonl"):
            assert (out / f"{name}{suffix}").read_bytes() == (there / f"{name}{suffix}").read_bytes()
        assert (out / f"{name}.history.svg").exists()
        assert load_model(out / f"{name}.safetensors")[2].data_fingerprint == "f" * 64
    before = {file: file.stat().st_mtime_ns for file in out.iterdir() if file.is_file()}
    assert all(line.endswith("is there already") for line in take(place, out)[:-1])
    assert {file: file.stat().st_mtime_ns for file in out.iterdir() if file.is_file()} == before
    again: list[str] = []
    train_cells(training(tmp_path, out=out), again.append)
    assert again == ["2 cells, 2 trained already, 0 to train."], "here they count as trained"


def test_single_archives_are_taken_as_they_come(place: Path, tmp_path: Path) -> None:
    lines = take(place, tmp_path / "zoo", place / "results" / f"{PRUNED}.tar")
    assert lines[-2:] == [f"1 of 2 cells of the pack are in {tmp_path / 'zoo'}.", f"missing: {DENSE}"]
    assert take(place, tmp_path / "zoo")[-1].startswith("2 of 2 cells")


def test_a_checkpoint_of_which_a_half_is_there_is_mended(place: Path, tmp_path: Path) -> None:
    take(place, tmp_path)
    (tmp_path / f"{DENSE}.safetensors").write_bytes(b"half")
    assert f"{DENSE}.tar: taken; " in "\n".join(take(place, tmp_path))
    load_model(tmp_path / f"{DENSE}.safetensors")


def test_another_checkpoint_of_the_name_is_replaced_only_by_force(place: Path, tmp_path: Path) -> None:
    take(place, tmp_path)
    card = json.loads((tmp_path / f"{DENSE}.json").read_text())
    (tmp_path / f"{DENSE}.json").write_text(json.dumps({**card, "sha256": "0" * 64}))
    with pytest.raises(UserError, match=r"Refused: 1 of 3 archives; the others are taken") as error:
        take(place, tmp_path)
    with pytest.raises(UserError, match=r"^Refused: 1 of 1 archives\.\n"):
        take(place, tmp_path, place / "results" / f"{DENSE}.tar")
    assert "is there already, and another one; allowed are --force" in error.value.details[0]
    assert load_card(tmp_path / f"{DENSE}.json").sha256 == "0" * 64
    take(place, tmp_path, force=True)
    assert load_card(tmp_path / f"{DENSE}.json").sha256 == card["sha256"]


def changed(place: Path, folder: Path, label: dict[str, Any], card: dict[str, Any]) -> Path:
    """Writes a cell's archive with another label or card, otherwise whole."""
    archive = read_archive(place / "results" / f"{DENSE}.tar")
    archive.unpack(folder)
    file = folder / f"{DENSE}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **card}))
    path = folder / "changed.tar"
    own = msgspec.convert({**msgspec.to_builtins(archive.label), **label}, Label)
    write_archive(path, own, [folder / name for name in archive.members])
    return path


@pytest.mark.parametrize(
    ("label", "card", "message"),
    [
        ({"name": "another_s0"}, {}, "'another_s0' is no cell of this pack"),
        ({"key": "0" * 64}, {}, r"trained under another key \(000000000000…, not "),
        ({"name": PRUNED}, {}, "trained under another key"),
        ({"kind": "work"}, {}, "which is no unfinished work of this cell"),
        ({}, {"data_fingerprint": "0" * 64}, r"another than this pack's \(different: data_fingerprint\)"),
        ({}, {"unfit": "trained on 3 images only (--subset)"}, r"\(different: unfit\)"),
        ({}, {"recipe": {}, "seed": 7}, r"\(different: seed, recipe\)"),
        ({}, {"sha256": "0" * 64}, "truncated or another file"),
        ({}, {"mask_sha256": "0" * 64}, "its masks are not those of its card"),
        ({}, {"kept": -1}, "is refused"),
    ],
)
def test_what_is_not_of_the_pack_is_refused(
    place: Path, tmp_path: Path, label: dict[str, Any], card: dict[str, Any], message: str
) -> None:
    path = changed(place, tmp_path, label, card)
    with pytest.raises(UserError, match="Refused: 1 of 1 archives") as error:
        take(place, tmp_path / "zoo", path)
    assert len(error.value.details) == 1
    assert error.match(message)
    assert not list((tmp_path / "zoo").rglob("cnn*.[!l]*"))


def test_a_refused_archive_does_not_keep_others_out(place: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for file in (place / "results").iterdir():
        (tmp_path / "results" / file.name).write_bytes(file.read_bytes())
    cut = tmp_path / "results" / f"{DENSE}.tar"
    cut.write_bytes(cut.read_bytes()[:-20_000])
    with pytest.raises(UserError, match=r"Refused: 1 of 3 archives.*\n.*is no whole archive of a cell"):
        take(place, tmp_path / "zoo", tmp_path / "results")
    assert (tmp_path / "zoo" / f"{PRUNED}.json").exists()
    assert not (tmp_path / "zoo" / f"{DENSE}.json").exists()


def test_what_is_missing_is_said(place: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is refused: there is no \.tar file in it"):
        take(place, tmp_path, tmp_path / "empty")
    with pytest.raises(UserError, match="There is no archive to take"):
        take_archives(UnpackRequest(pack=place / "lease", archives=(), out=tmp_path), print)
    with pytest.raises(UserError, match=r"none\.tar can't be used \(no such file or directory\)"):
        take(place, tmp_path, tmp_path / "none.tar")
    with pytest.raises(UserError, match=r"there is no pack\.json"):
        take(tmp_path, tmp_path, place / "results")


def test_trials_are_not_for_the_zoo(place: Path, tmp_path: Path) -> None:
    (tmp_path / "lease").mkdir()
    manifest = msgspec.structs.replace(read_manifest(place / "lease"), unfit="trained on 3 images only (--subset)")
    write_manifest(manifest, tmp_path / "lease")
    with pytest.raises(UserError, match=r"trained on 3 images only .* are not for the zoo"):
        take(tmp_path, ZOO, place / "results")


def test_a_cell_that_is_trained_here_at_the_same_time_is_left_alone(place: Path, tmp_path: Path) -> None:
    with (
        exclusive(tmp_path / ".work" / f"{DENSE}.lock", wait=False),
        pytest.raises(UserError, match="another process is training this cell here"),
    ):
        take(place, tmp_path)
    assert (tmp_path / f"{PRUNED}.json").exists()
    assert not (tmp_path / f"{DENSE}.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 3])
def test_what_a_budget_cuts_off_goes_on_on_another_machine(place: Path, tmp_path: Path, epochs: int) -> None:
    """After one epoch of two of pre-training, or one of two of the dense cell's fine-tuning (the last aren't asked)."""
    here, first = tmp_path / "zoo", pack(tmp_path, "lease", cells=DENSE)
    lines = train(first, tmp_path / "results", Steps(1 if epochs == 1 else 2))
    assert any(line.startswith("The budget of 10m is spent: 0 of 1 cells are trained") for line in lines)
    assert [file.name for file in (tmp_path / "results").iterdir()] == [f"{DENSE}.work.tar"]
    shutil.rmtree(first / "checkpoints")
    assert "unfinished, " in take(tmp_path, here)[0]
    assert take(tmp_path, here)[0].endswith("is there already")
    second = pack(tmp_path, "second", cells=DENSE)
    assert list((second / "start" / ".work").iterdir())
    train(second, tmp_path / "later")
    whole, joined = (
        load_card(folder / f"{DENSE}.json") for folder in (place / "lease/checkpoints", second / "checkpoints")
    )
    assert joined.sha256 == whole.sha256, "as if nothing had cut it off"
    stages = [(row.stage, row.epoch) for row in read_history(second / "checkpoints" / f"{DENSE}.history.jsonl")]
    assert stages == [("pretrain", 1), ("pretrain", 2), ("finetune", 1), ("finetune", 2)]


@pytest.mark.slow
def test_what_is_further_here_is_not_taken_back(place: Path, tmp_path: Path) -> None:
    lease = pack(tmp_path, cells=DENSE)
    train(lease, tmp_path / "early", Steps(1))
    train(lease, tmp_path / "late", Steps(1))
    out = tmp_path / "zoo"
    take(tmp_path, out, tmp_path / "late")
    before = {file.name: file.read_bytes() for file in (out / ".work").iterdir()}
    assert take(tmp_path, out, tmp_path / "early")[0].endswith("is there already")
    assert {file.name: file.read_bytes() for file in (out / ".work").iterdir()} == before


def test_archives_that_were_lost_are_written_again(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "lease", tmp_path / "lease")
    lines = train(tmp_path / "lease", tmp_path / "results")
    assert lines[0] == "2 cells, 2 trained already, 0 to train."
    for name in (DENSE, PRUNED):
        assert (tmp_path / "results" / f"{name}.tar").read_bytes() == (place / "results" / f"{name}.tar").read_bytes()
    assert len(train(tmp_path / "lease", tmp_path / "results")) == 1, "then nothing is left to do"
