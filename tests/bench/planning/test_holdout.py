"""Networks that were trained on the held-out images are refused on them, however they come to be asked about."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench import export, run
from prunecert.bench.planning import select
from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.holdout import refuse_contaminated
from prunecert.errors import UserError
from prunecert.models.holdout import FOREIGN_SPLIT
from tests.bench.conftest import CELLS, Zoo
from tests.models.conftest import blobs


def exported(**card: Any) -> Export:
    return Export(Path("net.onnx"), "", 0.0, 1.0, "", card)


def test_what_saw_them_is_named_and_what_may_have_is_told() -> None:
    lines: list[str] = []
    whole, plain = exported(recipe={"holdout": False}), exported(recipe={})
    foreign = exported(recipe={}, measured=f"{FOREIGN_SPLIT}; PGD")
    networks = [("a", "val", plain), ("b", "test", whole), ("c", "val", foreign), ("d", "val", exported(recipe="odd"))]
    refuse_contaminated(networks, lines.append)
    assert lines == ["c: whoever trained it, or its parent, may have trained on the held-out images."]
    with pytest.raises(UserError, match=r"^e, f: trained on the held-out images, too, .*; allowed are other images"):
        refuse_contaminated([*networks, ("e", "val", whole), ("f", "val", whole)])


@pytest.fixture
def options_of(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Returns a verb's options for a zoo whose dense network saw the held-out images, as a cell and as one's own."""
    checkpoints = tmp_path / "nets"
    shutil.copytree(zoo.checkpoints, checkpoints)
    card = checkpoints / f"{CELLS[0]}.json"
    data = json.loads(card.read_text())
    card.write_text(json.dumps({**data, "accuracy": {}, "recipe": {**data["recipe"], "holdout": False}}))
    monkeypatch.setattr(select, "load_split", lambda _source, split, *_a, **_k: blobs(20, split))

    def words(split: str, own: bool) -> list[str]:
        text = zoo.suite.read_text()
        suite = tmp_path / f"{split}.yaml"
        if own:
            path = checkpoints / f"{CELLS[0]}.safetensors"
            head = text.split("cells:")[0]
            verify = text[text.index("verify:") :]
            text = f"{head}cells:\n  - networks: [{{checkpoint: {path}, name: mine}}]\n    eps: [2/255]\n{verify}"
        suite.write_text(text.replace("verify:\n", f"verify:\n  split: {split}\n"))
        return ["--suite", str(suite), "--out", str(tmp_path / "out")]

    return words


@pytest.mark.parametrize("own", [False, True])
def test_runs_refuse_them_before_anything_is_asked(
    options_of: Callable[..., list[str]], tmp_path: Path, own: bool
) -> None:
    places = ["--checkpoints", str(tmp_path / "nets"), "--exports", str(tmp_path / "exports")]
    name = "mine" if own else CELLS[0]
    with pytest.raises(UserError, match=rf"^{name}.*: trained on the held-out images, too"):
        run.main([*options_of("val", own), *places, "--dry-run"])
    assert run.main([*options_of("test", own), *places, "--dry-run"]) == 0


def test_exports_write_no_properties_of_them(options_of: Callable[..., list[str]], tmp_path: Path) -> None:
    places = ["--checkpoints", str(tmp_path / "nets")]
    with pytest.raises(UserError, match="trained on the held-out images, too"):
        export.main([*options_of("val", False), *places])
    assert not (tmp_path / "out" / "instances.csv").exists()
    assert export.main([*options_of("test", False), *places]) == 0
