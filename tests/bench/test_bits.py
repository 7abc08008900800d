"""The command that chooses bits: what it refuses, and that its choice is compared on other images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench import bits
from prunecert.bench.planning.exports import Export, export_cell
from prunecert.bench.running import bit_search
from prunecert.bench.running.bit_search import Bits, Score
from prunecert.errors import EXIT_OK, UserError
from prunecert.models.bits import BitCount, LayerBits
from tests.bench.conftest import CELLS, Zoo
from tests.models.conftest import blobs


def words(zoo: Zoo, *more: str) -> list[str]:
    return ["--checkpoint", CELLS[1], "--checkpoints", str(zoo.checkpoints), "--bits", "4", *more]


class _Judge:
    """Likes bits of the first layer, and notes its images."""

    positions: list[Sequence[int]]

    def __init__(self, export: object, folder: object, data: object, positions: Sequence[int], *rest: object) -> None:
        self.positions.append(positions)

    def __call__(self, widths: Bits) -> tuple[Score, BitCount]:
        first = widths[0] if widths else 32
        return Score(first, 0.0), BitCount((LayerBits("w", first, 100, 10, 1),), 0)


@pytest.fixture(autouse=True)
def _held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bit_search, "load_split", lambda *_: blobs(50, "val"))


def test_the_choice_is_compared_with_equal_bits_on_images_that_the_search_has_not_seen(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bit_search, "VerifiedJudge", _Judge)
    _Judge.positions = []
    assert bits.main(words(zoo, "--images", "20", "--check", "30")) == EXIT_OK
    assert [list(images) for images in _Judge.positions] == [list(range(20)), list(range(20, 50))]
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert rows[:2] == ["bits", "32"]
    assert rows[2:] == ["4/4/4/4", lines[-1].removeprefix("bits: ")]
    assert lines[-1].startswith("bits: 8/")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--images", "40", "--check", "11"], "there are 50 held-out ones"),
        (["--verifier", "pgd"], "proves nothing"),
        (["--verifier", "sparse-crow"], "Did you mean"),
        (["--checkpoint", "cnn-small_ibp"], "There is no card"),
    ],
)
def test_what_is_refused(more: list[str], message: str, zoo: Zoo) -> None:
    with pytest.raises(UserError, match=message):
        bits.main(words(zoo, *more))


@pytest.mark.parametrize("value", ["1", "9", "x"])
def test_bits_out_of_range_are_refused(value: str, zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bits.main(words(zoo, "--bits", value))
    assert ended.value.code == 2
    assert "from 2 to 8" in capsys.readouterr().err


def test_another_data_set_is_named(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:

    def foreign(checkpoint: Path, folder: Path) -> Any:
        one = export_cell(checkpoint, folder)
        return type(one)(one.path, one.sha256, one.sparsity, 1.0, "", {**one.card, "data": {"name": "mine"}})

    monkeypatch.setattr(bit_search, "export_cell", foreign)
    with pytest.raises(UserError, match="Unknown data set 'mine'"):
        bits.main(words(zoo))


def test_bits_are_not_chosen_on_images_that_were_trained_on(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    def export_whole(*arguments: Any) -> Export:
        export = export_cell(*arguments)
        return replace(export, card={**export.card, "recipe": {"holdout": False}})

    monkeypatch.setattr(bit_search, "export_cell", export_whole)
    with pytest.raises(UserError, match=r"trained on the held-out images, too, which say nothing of such a network"):
        bits.main(words(zoo, "--images", "4", "--check", "4"))
