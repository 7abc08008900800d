from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.models.history import EpochRow, HeldOutAccuracy, History, history_file, read_history


def row(stage: str = "pretrain", epoch: int = 1, key: str = "k", loss: float = 1.0) -> EpochRow:
    return EpochRow(
        key=key, stage=stage, epoch=epoch, epochs=3, loss=loss, eps=0.01, lr=1e-3, images_per_s=100.0, seconds=2.0
    )


def places(path: Path) -> list[tuple[str, int]]:
    return [(one.stage, one.epoch) for one in read_history(path)]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    accuracy = HeldOutAccuracy(images=20, clean=0.5, pgd=0.25, seconds=0.5)
    measured = EpochRow(**{name: getattr(row(), name) for name in EpochRow.__struct_fields__} | {"held_out": accuracy})
    history = History(tmp_path / "a" / "n.history.jsonl", "k")
    for one in (row(), measured):
        history.add(one)
    assert read_history(history.path) == [measured], "the same epoch again replaces the earlier row"
    assert b"crown_ibp" not in history.path.read_bytes()


def test_the_file_lies_beside_its_checkpoint() -> None:
    for name in ("net_eps0.5_x10", "net_eps0.5_x10.json", "net_eps0.5_x10.safetensors"):
        assert history_file(Path("zoo") / name) == Path("zoo/net_eps0.5_x10.history.jsonl")


def test_training_that_goes_on_continues_its_history_and_what_is_done_again_replaces_what_followed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "n.history.jsonl"
    earlier = [row("pretrain", n, "shared") for n in (1, 2)]
    history = History(path, "k", earlier)
    for stage, epoch in (("scores", 1), ("finetune", 1), ("finetune", 2)):
        history.add(row(stage, epoch))
    whole = [("pretrain", 1), ("pretrain", 2), ("scores", 1), ("finetune", 1), ("finetune", 2)]
    assert places(path) == whole
    # Killed after the row and before the state of epoch 2: it is trained, and told, again.
    history = History(path, "k", earlier)
    history.add(row("finetune", 2, loss=2.0))
    assert places(path) == whole
    assert read_history(path)[-1].loss == 2.0
    history.add(row("finetune", 3))
    assert places(path) == [*whole, ("finetune", 3)]
    # Trained anew: the scores come again, and the old fine-tuning is no part of it.
    History(path, "k", earlier).add(row("scores", 1))
    assert places(path) == whole[:3]
    # Another recipe's rows are another training's.
    History(path, "other").add(row("scores", 1, "other"))
    assert [(one.key, one.stage) for one in read_history(path)] == [("other", "scores")]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 2000), count=st.integers(1, 4))
def test_a_kill_at_any_byte_costs_the_last_row_at_most(
    tmp_path_factory: pytest.TempPathFactory, cut: int, count: int
) -> None:
    path = tmp_path_factory.mktemp("h") / "n.history.jsonl"
    history = History(path, "k")
    for epoch in range(1, count + 1):
        history.add(row(epoch=epoch))
    data = path.read_bytes()
    kept = data[: min(cut, len(data))]
    path.write_bytes(kept)
    assert len(read_history(path)) == kept.count(b"\n")
    History(path, "k").add(row(epoch=count + 1))
    assert [one.epoch for one in read_history(path)] == [*range(1, kept.count(b"\n") + 1), count + 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n", "line 1, is no row"),
        ("nonsense\n", "line 1, is no row"),
        ("\xff\xfe\n", "line 1, is no row"),
    ],
)
def test_what_is_no_history_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "n.history.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        read_history(path)


def test_a_newer_one_is_refused(tmp_path: Path) -> None:
    history = History(tmp_path / "n.history.jsonl", "k")
    newer = row()
    newer.schema_version = 2
    history.add(newer)
    with pytest.raises(UserError, match="schema version 2, newer than this program's 1"):
        read_history(history.path)
