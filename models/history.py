"""The history of a training: one typed row an epoch, in a JSONL file beside the checkpoint.

A row is written and flushed when its epoch ends, so that a killed training loses none. A training that goes on adds to
its file; an epoch that is trained again, because it was cut off before its state was kept, replaces its row and those
after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from prunecert.errors import UserError
from prunecert.files import read_regular, write_bytes

SCHEMA_VERSION = 1
SUFFIX = ".history.jsonl"
#: Rows have some 400 bytes.
_MOST_BYTES = 1 << 28
_Count = Annotated[int, Meta(ge=1, le=2**53)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Amount = Annotated[float, Meta(ge=0, le=1e12)]


class HeldOutAccuracy(Struct, kw_only=True, omit_defaults=True):
    """What a network is worth on a few held-out images, with the weights of the moment.

    Args:
        images: How many.
        clean: Share classified correctly.
        pgd: Share that holds under PGD at the cell's full radius, too; null for training with noise.
        ibp: Share proved by intervals; null where the network can't be bounded.
        crown_ibp: Share proved by CROWN-IBP; null where the network can't be bounded.
        noisy: Share classified correctly under noise; null for training with a radius.
        seconds: What measuring took.
    """

    images: _Count
    clean: _Share
    pgd: _Share | None = None
    ibp: _Share | None = None
    crown_ibp: _Share | None = None
    noisy: _Share | None = None
    seconds: _Amount


class EpochRow(Struct, kw_only=True, omit_defaults=True):
    """One epoch.

    Args:
        schema_version: Of the row.
        key: Digits that stand for recipe, data and cell; rows of another key are another training's.
        stage: ``pretrain``, ``scores``, ``finetune``, ...
        epoch: Its number in the stage, from 1.
        epochs: How many the stage has.
        loss: Mean loss of an image.
        eps: Radius of training at the epoch's end, in pixels of [0, 1]; standard deviation for training with noise.
        lr: Learning rate of the last step.
        images_per_s: Training images per second.
        seconds: Of training, without measuring.
        held_out: Accuracies on held-out images, of the epochs after which they were measured.
    """

    schema_version: int = SCHEMA_VERSION
    key: str
    stage: str
    epoch: _Count
    epochs: _Count
    loss: Annotated[float, Meta(ge=-1e300, le=1e300)]
    eps: _Amount
    lr: _Amount
    images_per_s: _Amount
    seconds: _Amount
    held_out: HeldOutAccuracy | None = None


def history_file(checkpoint: Path) -> Path:
    """Returns where the history of a checkpoint lies: ``NAME.history.jsonl`` beside it.

    Args:
        checkpoint: The checkpoint, its card, or either's path without an ending, whatever dots its name has.
    """
    name = checkpoint.name.removesuffix(".safetensors").removesuffix(".json")
    return checkpoint.with_name(name + SUFFIX)


def read_history(path: Path) -> list[EpochRow]:
    """Reads a history; a last line that a kill has cut off is left out.

    Raises:
        UserError: There is none, a row is none or of a newer version.
    """
    lines = read_regular(path, _MOST_BYTES).split(b"\n")
    # What follows the last line break was cut off.
    return [_row(path, number, line) for number, line in enumerate(lines[:-1], 1) if line]


def _row(path: Path, number: int, line: bytes) -> EpochRow:
    try:
        row = msgspec.json.decode(line, type=EpochRow)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}, line {number}, is no row of a training's history ({error}); delete the file, which only tells of "
            "the training, or restore it."
        ) from error
    if row.schema_version > SCHEMA_VERSION:
        raise UserError(
            f"{path}, line {number}, has schema version {row.schema_version}, newer than this program's "
            f"{SCHEMA_VERSION}; update prunecert."
        )
    return row


class History:
    """The history of a training that is under way.

    Args:
        path: Its file; its folder is made with the first row.
        earlier: Rows that come before its own, such as those of a shared pre-training.
        key: Rows of the file that have another key are another training's, and go with the first row that is added.

    Raises:
        UserError: The file is damaged.
    """

    def __init__(self, path: Path, key: str, earlier: Iterable[EpochRow] = ()) -> None:
        self.path, self.key = path, key
        there = read_history(path) if path.exists() else []
        self.rows = [*earlier, *(row for row in there if row.key == key)]
        # With a cut-off last line, too, the file is not what it should begin with.
        self._written = path.exists() and path.read_bytes() == _encoded(self.rows)

    def add(self, row: EpochRow) -> None:
        """Adds an epoch's row; one that was there already goes, with all that came after it."""
        first = next((i for i, old in enumerate(self.rows) if _same_stage(old, row) and old.epoch >= row.epoch), None)
        if first is not None:
            del self.rows[first:]
            self._written = False
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._written:
            write_bytes(self.path, _encoded(self.rows))
            self._written = True
            return
        with self.path.open("ab") as stream:
            stream.write(_encoded([row]))


def _same_stage(one: EpochRow, other: EpochRow) -> bool:
    return (one.key, one.stage) == (other.key, other.stage)


def _encoded(rows: Iterable[EpochRow]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
