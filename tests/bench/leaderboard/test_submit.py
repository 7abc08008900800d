from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prunecert.bench.leaderboard.check import check_tree
from prunecert.bench.leaderboard.entry import load_entry
from prunecert.bench.leaderboard.submit import refuse_few
from prunecert.errors import UserError
from tests.bench.cardkit import CARD, Run, network
from tests.bench.conftest import CELLS, Zoo

#: The profile whose runs have enough images for the board.
BOARD = ("--profile", "board")


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the made-up data for an official copy, so that a run on it counts as publishable."""
    import prunecert.bench.planning.select
    from prunecert.models.data import Dataset
    from prunecert.models.datasets.source import load_split

    def publishable(*args: Any, **options: Any) -> Dataset:
        data = load_split(*args, **options)
        return Dataset(data.images, data.labels, data.indices, data.split, data.fingerprint, True, False, "CIFAR-10")

    monkeypatch.setattr(prunecert.bench.planning.select, "load_split", publishable)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_finished_run_is_submitted_and_valid(
    run: Run, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official: None
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path / "run", *BOARD, "--submit", "--by", "somebody") == 0
    good, problems = check_tree(tmp_path / "results")
    assert problems == []
    assert sorted(entry["cell"]["name"] for entry in good.values()) == sorted(CELLS)
    pruned = next(e for e in good.values() if e["cell"]["pruner"] == "lwm")
    assert pruned["by"] == "somebody"
    assert pruned["weights"]["compression"] == pytest.approx(10, rel=1e-3)
    assert [layer["kind"] for layer in pruned["weights"]["layers"]] == ["Conv", "Conv", "Gemm", "Gemm"]
    assert pruned["data"]["images"] == 60
    # What a pruner notes is data, and its authors' words are none.
    assert pruned["training"]["notes"] == {"rounds": [{"kept": 21476, "alone": [0.5]}]}
    assert [entry["method"]["notes"] for entry in good.values()] == ["", ""]
    assert sum("notes" in entry["training"] for entry in good.values()) == 1
    # No folder of this machine is published.
    text = (tmp_path / "results" / "leaderboard" / f"{pruned['name']}.json").read_text()
    assert str(tmp_path) not in text
    assert str(zoo.checkpoints.parent) not in text
    # Once more: the same run makes the same entries.
    before = {path.name for path in (tmp_path / "results" / "leaderboard").iterdir()}
    assert run(tmp_path / "run", *BOARD, "--submit", "--by", "somebody") == 0
    assert {path.name for path in (tmp_path / "results" / "leaderboard").iterdir()} == before


@pytest.mark.slow
def test_a_truncated_run_is_not_submitted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official: None
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"nothing was written.*data\.images: 52 images; the suite asks for 60"):
        run(tmp_path / "run", "--images", "52", *BOARD, "--submit")
    assert not (tmp_path / "results" / "leaderboard").exists()


def test_a_run_of_five_images_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def plan(images: int) -> Any:
        return SimpleNamespace(cell=SimpleNamespace(name=f"c{images}"), protocol=SimpleNamespace(images=images))

    refuse_few([plan(50), plan(1000)], tmp_path)
    with pytest.raises(UserError, match=r"^--submit is refused, nothing was written to .*: c5 has 5 images, and .*\.$"):
        refuse_few([plan(50), plan(5), plan(6)], tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_strangers_network_enters_by_its_file_and_a_card(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    network(tmp_path / "theirs.onnx", zeros=1000)
    (tmp_path / "card.yaml").write_text(CARD)
    assert run(tmp_path / "run", "--card", str(tmp_path / "card.yaml"), *BOARD, "--submit", "--by", "a stranger") == 0
    (path,) = (tmp_path / "results" / "leaderboard").glob("*.json")
    assert path.name.startswith("my-method.")
    entry = load_entry(path)
    good, problems = check_tree(tmp_path / "results")
    assert problems == []
    assert len(good) == 1
    # 96 + 1,280 weights; the 1x1 depthwise convolution is a folded normalisation.
    assert (entry["weights"]["total"], entry["weights"]["nonzero"]) == (1376, 376)
    assert entry["cell"]["compression"] == float(f"{1376 / 376:.4g}")
    assert entry["cell"]["pruner"] == "their-pruner"
    assert entry["files"]["checkpoint_sha256"] is None
    assert entry["method"]["title"] == "A method <b>of mine</b>"
    assert [stage["verifier"] for stage in entry["protocol"]["stages"]] == ["fake-bound", "fake-complete"]
