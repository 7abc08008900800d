"""The baseline file: a run's protocol and answers, compact and with a line an image, so that changes can be reviewed.

`results/README.md` describes every field.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from prunecert.bench.gating.records import AnswerRecord, CellRecord, ImageRecord, Snapshot
from prunecert.bench.results.baseline_types import Baseline, BaselineCell, Head, InstanceAnswer, InstanceHead
from prunecert.bench.results.decode import convert, document, plain, read_bytes, why
from prunecert.bench.results.session_types import CellInfo
from prunecert.errors import UserError
from prunecert.files import write_text
from prunecert.hashing import digest

SCHEMA_VERSION = 1
KIND = "baseline"
#: How many fields of an instance come before the answers.
_HEAD = 4


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """Returns a snapshot as plain data, with the digest that shows whether it was changed by hand."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "history": plain(list(snapshot.history)),
        **plain(snapshot.head),
        "command": [_portable(word) for word in snapshot.head.command],
        "unpublishable": list(snapshot.unpublishable),
        "cells": [
            {**plain(cell.info), "stages": plain(list(cell.stages)), "instances": _instances(cell)}
            for cell in snapshot.cells.values()
        ],
    }
    return {**data, "digest": digest(data)}


def _portable(word: str) -> str:
    """Returns a word of a command without the folders of the machine it ran on: baselines get published."""
    return f"…/{Path(word).name}" if Path(word).is_absolute() else word


def _instances(cell: CellRecord) -> list[list[Any]]:
    """One row an image: index, label, correct (0 or 1), question, then [status, seconds] or null by verifier."""
    return [
        [
            image.image,
            image.label,
            int(image.correct),
            image.question,
            *(_answer(image.answers.get(name)) for name in cell.verifiers),
        ]
        for image in cell.images.values()
    ]


def _answer(answer: AnswerRecord | None) -> list[Any] | None:
    return None if answer is None else [answer.status, float(f"{answer.seconds:.4g}")]


def write(path: Path, snapshot: Snapshot) -> None:
    """Writes a baseline whole or not at all."""
    data = to_json(snapshot)
    cells = []
    for cell in data["cells"]:
        rows = ",\n".join(json.dumps(row, separators=(",", ":"), allow_nan=False) for row in cell.pop("instances"))
        cells.append(json.dumps(cell, allow_nan=False)[:-1] + ', "instances": [\n' + rows + "\n]}")
    body = [
        f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in data.items() if key != "cells"
    ]
    body.insert(-1, ' "cells": [\n' + ",\n".join(cells) + "\n ]")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "{\n" + ",\n".join(body) + "\n}\n")


def read(path: Path) -> Snapshot:
    """Reads a baseline.

    Raises:
        UserError: It is missing, no baseline, of a newer schema, or was changed by hand.
    """
    make = f'make one with: prunecert baseline --run RUN --out {path} --reason "…"'
    again = "restore it, or make it again with prunecert baseline"
    data = document(read_bytes(path, "Baseline", make), path, "Baseline", make)
    if data.get("kind") != KIND:
        raise UserError(f"{path} is no baseline; prunecert baseline makes one from a run.")
    version = data.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(f"Baseline {path} has no valid schema_version (found {version!r:.40}).")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"Baseline {path} is of schema version {version}, newer than this program reads ({SCHEMA_VERSION}); "
            "upgrade prunecert."
        )
    if data.get("digest") != digest({key: value for key, value in data.items() if key != "digest"}):
        raise UserError(
            f"Baseline {path} was changed after it was made (its digest does not fit); make it again with "
            "prunecert baseline, which records the reason."
        )
    baseline = convert(data, Baseline, path, "Baseline", again)
    return Snapshot(
        head=Head(**{name: getattr(baseline, name) for name in Head.__struct_fields__}),
        cells={cell.name: _cell(path, cell) for cell in baseline.cells},
        history=tuple(baseline.history),
        unpublishable=tuple(baseline.unpublishable),
    )


def _cell(path: Path, cell: BaselineCell) -> CellRecord:
    names = [stage.verifier for stage in cell.stages]
    images: dict[int, ImageRecord] = {}
    try:
        if len(set(names)) < len(names):
            raise ValueError("a verifier is named twice")
        for row in cell.instances:
            index, label, correct, question = msgspec.convert(row[:_HEAD], InstanceHead)
            answers = msgspec.convert(row[_HEAD:], list[InstanceAnswer])
            if index in images:
                raise ValueError(f"image {index} stands there twice")
            by_verifier = {
                name: AnswerRecord(str(answer[0]), answer[1])
                for name, answer in zip(names, answers, strict=True)
                if answer is not None
            }
            images[index] = ImageRecord(index, label, bool(correct), question, by_verifier)
    except ValueError as error:
        raise UserError(
            f"Baseline {path} is damaged: the instances of cell {cell.name}: {why(error)[1]}; make it again."
        ) from error
    info = CellInfo(**{name: getattr(cell, name) for name in CellInfo.__struct_fields__})
    return CellRecord(info, tuple(cell.stages), images)
