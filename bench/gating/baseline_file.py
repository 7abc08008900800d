"""The baseline file: a run's protocol and answers, compact and with a line an image, so that changes can be reviewed.

`results/README.md` describes every field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.gating.records import Answer, CellRecord, Image, Snapshot
from bench.report.publish import write_text
from prunecert.errors import UserError
from prunecert.hashing import digest
from verifiers.base import Status

SCHEMA_VERSION = 1
KIND = "baseline"
_STATUSES = frozenset(str(status) for status in Status)


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """Returns a snapshot as plain data, with the digest that shows whether it was changed by hand."""
    data = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "history": [dict(entry) for entry in snapshot.history],
        **snapshot.head,
        "command": [_portable(word) for word in snapshot.head["command"]],
        "unpublishable": list(snapshot.unpublishable),
        "cells": [
            {**cell.info, "stages": [dict(stage) for stage in cell.stages], "instances": _instances(cell)}
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


def _answer(answer: Answer | None) -> list[Any] | None:
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
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"Baseline {path} cannot be read ({error.strerror}); make one with: "
            f'python -m bench.baseline --run RUN --out {path} --reason "…"'
        ) from error
    except ValueError as error:
        raise UserError(f"Baseline {path} is no JSON ({error}); restore it, or make it again.") from error
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise UserError(f"{path} is no baseline; bench.baseline makes one from a run.")
    version = data.get("schema_version")
    if not isinstance(version, int) or version < 1:
        raise UserError(f"Baseline {path} has no valid schema_version (found {version!r}).")
    if version > SCHEMA_VERSION:
        raise UserError(
            f"Baseline {path} is of schema version {version}, newer than this program reads ({SCHEMA_VERSION}); "
            "upgrade prunecert."
        )
    claimed = data.pop("digest", None)
    if claimed != digest(data):
        raise UserError(
            f"Baseline {path} was changed after it was made (its digest does not fit); make it again with "
            "bench.baseline, which records the reason."
        )
    try:
        return _from_json(data)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"Baseline {path} is damaged ({type(error).__name__}: {error}); make it again.") from error


def _from_json(data: Mapping[str, Any]) -> Snapshot:
    known = ("schema_version", "kind", "history", "unpublishable", "cells")
    return Snapshot(
        head={key: value for key, value in data.items() if key not in known},
        cells={cell["name"]: _cell(cell) for cell in data["cells"]},
        history=tuple(data["history"]),
        unpublishable=tuple(data["unpublishable"]),
    )


def _cell(cell: Mapping[str, Any]) -> CellRecord:
    stages = tuple(cell["stages"])
    names = [stage["verifier"] for stage in stages]
    images = {}
    for index, label, correct, question, *answers in cell["instances"]:
        found = {}
        for name, answer in zip(names, answers, strict=True):
            if answer is not None:
                status, seconds = answer
                if status not in _STATUSES:
                    raise ValueError(f"unknown status {status!r}")
                found[name] = Answer(status, float(seconds))
        images[index] = Image(index, label, bool(correct), question, found)
    info = {key: value for key, value in cell.items() if key not in ("stages", "instances")}
    return CellRecord(info, stages, images)
