"""Rows for tests: what a log holds as plain data, and typed rows of the few fields that a test is about."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from prunecert.bench.results.decode import build
from prunecert.bench.results.row_types import (
    CertificateRow,
    EndRow,
    ImageRow,
    PairRow,
    ProofRow,
    PropertyRow,
    Row,
    VerdictRow,
    VisitRow,
)
from prunecert.bench.results.session_types import SessionCell, SessionRow, VerifySessionRow
from prunecert.bench.results.store import Log

MACHINE = {"system": "Linux 6", "architecture": "x86_64", "cpu": "x", "cores": 2, "memory_gib": 4.0}
_ANSWER: Mapping[str, Any] = {
    "id": "0",
    "key": "k",
    "cell": "c",
    "image": 0,
    "label": 0,
    "settings": "0",
    "timeout": 9.0,
    "status": "unknown",
    "verifier": "ibp",
    "version": "1",
}
SESSION: Mapping[str, Any] = {
    "schema_version": 1,
    "writer": "main",
    "started": "2026-01-01T00:00:00Z",
    "command": ["python", "-m", "bench.run"],
    "suite": "tiny",
    "profile": "default",
    "suite_digest": "0",
    "description": "",
    "data": [{"split": "test", "fingerprint": "f", "official": True, "sample": False, "source": "CIFAR-10"}],
    "versions": {"torch": "2"},
    "machine": MACHINE,
    "device": "cpu",
    "workers": 2,
    "threads": 1,
    "float32": "TF32 off",
    "unpublishable": [],
    "missing": [],
    "skipped": {},
    "cells": [],
}
CELL: Mapping[str, Any] = {
    "name": "c",
    "network": "cnn-small",
    "objective": "ibp",
    "eps": "2/255",
    "pruner": "dense",
    "compression": 1.0,
    "seed": 0,
    "split": "test",
    "onnx_sha256": "a" * 64,
    "checkpoint_sha256": "b" * 64,
    "data_fingerprint": "f" * 64,
    "measured_sparsity": 0.0,
    "measured_compression": 1.0,
    "images": 6,
    "indices": None,
    "image_key": "i",
    "stages": [],
    "unsupported": {},
    "note": "",
}
STAGE: Mapping[str, Any] = {
    "verifier": "ibp",
    "key": "k",
    "kind": "complete",
    "version": "1",
    "source": "",
    "settings": {},
    "settings_hash": "0",
    "timeout": 9.0,
    "device": "cpu",
    "everyone": True,
    "memory_mb": None,
}
#: By type: the class, and what a row of it has where a test says nothing.
_KINDS: Mapping[str, tuple[type[msgspec.Struct], Mapping[str, Any]]] = {
    "session": (SessionRow, SESSION),
    "image": (ImageRow, {"key": "i", "cell": "c", "image": 0, "label": 0, "predicted": 0, "correct": True}),
    "verdict": (VerdictRow, {**_ANSWER, "question": "q"}),
    "certificate": (CertificateRow, _ANSWER),
    "property": (
        PropertyRow,
        {
            **{key: _ANSWER[key] for key in ("id", "timeout", "status")},
            **dict.fromkeys(("problem", "category", "onnx", "onnx_sha256", "vnnlib", "vnnlib_sha256"), "x"),
            "settings": {},
        },
    ),
    "visit": (
        VisitRow,
        {
            **{key: _ANSWER[key] for key in ("cell", "verifier", "image")},
            **{"repeat": 1, "start_s": 0.0, "load_s": 0.0, "warm_s": 0.0, "load_average": 0.0},
        },
    ),
    "pair": (
        PairRow,
        {
            **{key: _ANSWER[key] for key in ("id", "key", "cell", "image", "settings", "timeout", "status")},
            **{"question": "p", "partner": "d", "alike": "class", "verifier": "sparse-pair", "version": "1"},
        },
    ),
    "proof": (
        ProofRow,
        {**{key: _ANSWER[key] for key in ("key", "cell", "image", "status", "verifier")}, "question": "q"},
    ),
    "end": (EndRow, {"writer": "main", "ended": "2026-01-01T00:01:00Z", "seconds": 1.0}),
}


def complete(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row as plain data, with what it lacks filled in."""
    kind = row["type"]
    if kind == "session" and "verifiers" in row:
        shared = {key: SESSION[key] for key in VerifySessionRow.__struct_fields__ if key in SESSION}
        return copy.deepcopy({**shared, **row})
    whole = {**_KINDS[kind][1], **row}
    if kind == "session":
        whole["machine"] = {**MACHINE, **whole["machine"]}
        whole["cells"] = [
            {**CELL, **cell, "stages": [{**STAGE, **stage} for stage in cell.get("stages", ())]}
            for cell in whole["cells"]
        ]
    # Tests change rows; what they all have must not change with them.
    return copy.deepcopy(whole)


def typed(row: Mapping[str, Any]) -> Any:
    """Returns a row, with what it lacks filled in."""
    whole = complete(row)
    kind = VerifySessionRow if "verifiers" in whole else _KINDS[whole["type"]][0]
    return build(kind, {key: value for key, value in whole.items() if key != "type"})


def all_typed(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Returns `typed` of each row."""
    return [typed(row) for row in rows]


def cell(**fields: Any) -> SessionCell:
    """Returns a session's cell."""
    session: SessionRow = typed({"type": "session", "cells": [fields]})
    return session.cells[0]


def documents(out: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Returns the rows of a run as plain data, in the order of the log, after reading them as everybody does.

    Args:
        out: The run directory.
        kind: Their type; None for all.
    """
    log = Log(out)
    decoded = [msgspec.to_builtins(row) for row in log.rows()]
    lines = [line for path in sorted(out.glob("instances.*.jsonl")) for line in path.read_text().split("\n") if line]
    raw = [json.loads(line) for line in lines[: len(decoded)]] if not log.notes else decoded
    # What is read is all that was written: no field is lost on the way.
    for one, other in zip(raw, decoded, strict=True):
        assert one == other
    return [row for row in raw if kind is None or row["type"] == kind]
