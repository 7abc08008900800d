"""The board as CSV and Parquet: one line an entry, full precision."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunecert.bench.site.methods import facets_of
from prunecert.bench.site.ranking import Rank
from prunecert.bench.site.view import METRICS, Row
from prunecert.errors import UserError
from prunecert.models.ap_taxonomy import our_methods, taxonomy_json

#: Spreadsheets take a text that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def record(row: Row, rank: Rank | None = None) -> dict[str, Any]:
    """Returns an entry as one flat record of text, numbers and None.

    Args:
        row: The entry.
        rank: Its rank, if it has one.
    """
    entry, cell, result, protocol = row.entry, row.cell, row.result, row.entry["protocol"]
    shares = {
        f"{metric}_{part}": None if metric == "verified" and not row.can_verify else result[metric][key]
        for metric in METRICS
        for part, key in (("images", "k"), ("share", "value"), ("low", "low"), ("high", "high"))
    }
    kept = {
        f"{metric}_kept{end}": getattr(row.kept[metric], part) if row.kept and metric in row.kept else None
        for metric in METRICS
        for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
    }
    return {
        "name": row.name,
        "title": row.title,
        "rank": rank.place if rank else None,
        "rank_best": rank.best if rank else None,
        "rank_worst": rank.worst if rank else None,
        "ranked": rank.of if rank else None,
        "by": entry["by"],
        **{key: cell[key] for key in ("network", "objective", "eps", "pruner", "seed")},
        "compression": row.compression,
        "sparsity": row.sparsity,
        "weights": entry["weights"]["dense"],
        "nonzero": entry["weights"]["nonzero"],
        "images": row.images,
        "images_with_answers": row.own_images,
        "larger_run": row.larger.file if row.larger else None,
        **facets_of(row.cell["pruner"]),
        **shares,
        "undecided": result["undecided"]["total"],
        **kept,
        "dense_control": row.dense.name if row.dense else None,
        "median_s": result["time"]["median_s"],
        "p90_s": result["time"]["p90_s"],
        "total_s": result["time"]["total_s"],
        "verifiers": " ".join(row.verifiers),
        "suite": protocol["suite"],
        "profile": protocol["profile"],
        "device": protocol["device"],
        "cpu": protocol["machine"]["cpu"],
        "started": protocol["started"],
        "onnx_sha256": entry["files"]["onnx_sha256"],
        "images_sha256": entry["data"]["images_sha256"],
        "notes": "; ".join(row.notes),
    }


def taxonomy_text(rows: Sequence[Row]) -> str:
    """Returns the pruning methods of the board in the taxonomy of the Adversarial Pruning benchmark, as its JSON."""
    methods = our_methods(sorted({row.cell["pruner"] for row in rows}))
    return json.dumps(taxonomy_json(methods), indent=1) + "\n"


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Returns CSV; a text that a spreadsheet would run as a formula gets an apostrophe in front."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(records[0]), lineterminator="\r\n")
    writer.writeheader()
    for item in records:
        writer.writerow({key: _tame(value) for key, value in item.items()})
    return stream.getvalue()


def _tame(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def has_pyarrow() -> bool:
    """Whether Parquet can be written here."""
    import importlib.util

    return importlib.util.find_spec("pyarrow") is not None


def write_parquet(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the records.

    Raises:
        UserError: pyarrow is not installed.
    """
    if not has_pyarrow():
        raise UserError("Parquet needs pyarrow, which is not installed: pip install 'prunecert[publish]'.")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(item) for item in records]), path)
