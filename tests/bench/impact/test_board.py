"""The board and its contrasts, from the entries that ship: who is held against whom, and what that costs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prunecert.bench.impact.board import contrasts, costs_of, shared_seconds
from prunecert.bench.results.impact.images import ImageOutcomes
from prunecert.bench.retention import main
from prunecert.errors import UserError
from prunecert.models.checkpoint import ZOO, load_card
from prunecert.models.history import EpochRow, HeldOutAccuracy, history_file
from tests.bench.impact.conftest import ENTRIES
from tests.bench.results.impact.networks import network, proved

NAME = "cnn-small_ibp_eps2_lwm_x100_s0"


def write_history(checkpoint: Path) -> None:
    measured = HeldOutAccuracy(images=10, clean=0.5, pgd=0.4, seconds=3.0)
    whole: dict[str, Any] = {"loss": 1.0, "eps": 0.0, "lr": 0.1, "images_per_s": 1.0}
    rows = [
        EpochRow(key="shared", stage="pretrain", epoch=1, epochs=2, seconds=50.0, held_out=measured, **whole),
        EpochRow(key="shared", stage="pretrain", epoch=2, epochs=2, seconds=60.0, **whole),
        EpochRow(key="own", stage="finetune", epoch=1, epochs=1, seconds=70.0, **whole),
    ]
    history_file(checkpoint).write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def test_the_pre_training_is_read_from_the_history_beside_a_checkpoint(tmp_path: Path) -> None:
    for file in ZOO.glob(f"{NAME}.*"):
        shutil.copy(file, tmp_path)
    assert shared_seconds(tmp_path / f"{NAME}.safetensors") is None
    write_history(tmp_path / f"{NAME}.safetensors")
    assert shared_seconds(tmp_path / f"{NAME}.safetensors") == 113.0
    card = load_card(tmp_path / NAME)
    part = network(proved(1), checkpoint_sha256=card.sha256)
    part = replace(part, cell=msgspec.structs.replace(part.cell, name=NAME))
    cost = costs_of([part], tmp_path)[part.cell.name]
    assert (cost.train_seconds, cost.estimated) == (card.train_seconds + 113.0, False)


def test_a_run_s_own_cards_tell_what_checkpoints_would(tmp_path: Path) -> None:
    card = load_card(ZOO / NAME)
    part = network(proved(1), card=card.to_json(), checkpoint_sha256=card.sha256)
    cost = costs_of([part], tmp_path)[part.cell.name]
    # Its dense control isn't there, so that nobody knows what its pre-training took.
    assert cost.train_seconds is None
    assert cost.macs == 90_975
    # What was counted in the file comes before what the card's masks say.
    part = network(proved(1), card=card.to_json(), checkpoint_sha256=card.sha256, multiply_adds=80_000)
    assert costs_of([part], tmp_path)[part.cell.name].macs == 80_000


def test_methods_are_held_against_the_one_that_is_named(entries: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(entries), "--about", "methods", "--against", "hydra"])
    text = capsys.readouterr().out
    assert "| pruner | × | to dense (95 %) | to hydra (95 %) | p |" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| lwm | 100 | -")]
    assert not line.endswith("| – | – |")


def test_groups_are_compared_at_equal_weights_and_multiply_adds(
    entries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(entries), "--about", "contrasts"])
    text = capsys.readouterr().out
    assert "| HYDRA against LWM | 100 | weights (1.00) | 1, 1 | 1 | +" in text
    # They have the same multiply-adds, too, so that the same test isn't made twice.
    assert "| HYDRA against LWM | 100 | multiply-adds" not in text


def test_other_trainings_need_two_seeds_of_three_methods(capsys: pytest.CaptureFixture[str]) -> None:
    # The shipped entries have both seeds of these four at 100x.
    results = ENTRIES.parents[0]
    cells = "cnn-small_ibp_*_lwm_x100_*,cnn-small_ibp_*_hydra_x100_*,cnn-small_ibp_*_lwm-iterative_x100_*"
    main([str(results), "--about", "trainings", "--cells", cells])
    text = capsys.readouterr().out
    assert "**cnn-small, ibp, 2/255: other trainings**" in text
    assert "| 100 | 4 | 0, 1 | verified | " in text
    (line,) = [line for line in text.splitlines() if line.startswith("| lwm | ")]
    assert line.endswith("| – | – |")
    with pytest.raises(UserError, match="Nothing can be said of other trainings: at no compression do 3 methods"):
        main([str(results), "--about", "trainings", "--cells", "cnn-small_ibp_*_s0"])


def test_what_cannot_be_held_against_anything_is_refused(entries: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'hydra'"):
        main([str(entries), "--about", "methods", "--against", "hydrra"])
    for about in ("potential", "rates"):
        with pytest.raises(UserError, match=f"--against is refused with --about {about}"):
            main([str(entries), "--about", about, "--against", "hydra"])
    alone: list[ImageOutcomes] = [network(proved(1))]
    with pytest.raises(UserError, match="No two groups"):
        list(contrasts(alone, tmp_path, None))
