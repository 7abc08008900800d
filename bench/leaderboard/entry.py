"""A leaderboard entry: one network at one radius under one protocol, with all answers, in one JSON file.

`results/README.md` describes the fields. Everything that is counted from others (`result`) is counted again by
`bench.check` from `images` and `verdicts`, with the code that summarises runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from prunecert.bench.leaderboard.commands import without_places
from prunecert.bench.leaderboard.entry_types import TRAINING
from prunecert.bench.leaderboard.entryschema import MOST_BYTES, decode
from prunecert.bench.leaderboard.imagesets import images_sha256
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.decode import why
from prunecert.bench.results.impact.costs import sparse_macs
from prunecert.bench.results.outcome import seconds
from prunecert.bench.results.row_types import ImageRow, VerdictRow
from prunecert.bench.results.session_types import SessionCell
from prunecert.bench.results.store import Log
from prunecert.bench.results.summary import Answer, Rows, summarise_cell
from prunecert.bench.schema.cell import Protocol
from prunecert.errors import UserError
from prunecert.files import read_regular
from prunecert.hashing import digest
from prunecert.onnx.count import count_layers, totals
from prunecert.printable import shortened
from prunecert.verifiers.base import Status

SCHEMA_VERSION = 1
KIND = "leaderboard-entry"
#: What a file, and so a page of the site, may be called.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,119}")
COLUMNS = ("image", "status", "seconds", "unstable", "domains", "decided_in")
RESULT = ("clean", "verified", "attacked", "undecided", "decided_by", "time")

Entry = dict[str, Any]
Answered = ImageRow | VerdictRow


def read_answers(out: Path, plans: Sequence[CellPlan]) -> dict[str, dict[int, Answered]]:
    """Returns a run's latest image and verdict rows, by key and image, of the cells that are planned."""
    answers: dict[str, dict[int, Answered]] = {key: {} for plan in plans for key in (plan.image_key, *plan.keys)}
    for row in Log(out).rows():
        if isinstance(row, ImageRow | VerdictRow) and row.key in answers:
            answers[row.key][row.image] = row
    return answers


def make_entry(
    plan: CellPlan,
    protocol: Protocol,
    session: Mapping[str, Any],
    answers: Mapping[str, Mapping[int, Answered]],
    by: str,
    proofs: Mapping[str, Any] | None = None,
) -> Entry:
    """Returns the entry of one cell.

    Args:
        plan: The cell as it was verified.
        protocol: How the suite says that it should be verified.
        session: The session row of the run.
        answers: See `read_answers`.
        by: Who submits it.
        proofs: Its certificates, see `bench.leaderboard.proofs`; None: there are none.
    """
    images = {number: row for number, row in answers[plan.image_key].items() if isinstance(row, ImageRow)}
    order = [int(i) for i in plan.data.indices[: plan.images] if int(i) in images]
    layers = count_layers(plan.export.masked_path)
    total, kept = totals(layers)
    card = dict(plan.export.card)
    # A foreign network's card has notes of its authors in their words, a checkpoint's those of its pruner, as data.
    trained = all(key in card for key in TRAINING)
    dense = int(card.get("dense_weights") or total)
    described = plan.to_json()
    data = next(item for item in session["data"] if item["split"] == plan.data.split)
    entry: Entry = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "name": "",
        "digest": "",
        "by": by,
        "method": {
            **{key: card.get(key, "") for key in ("title", "url")},
            "notes": "" if trained else card.get("notes", ""),
            **({"authors": card["authors"]} if card.get("authors") else {}),
        },
        "cell": {**plan.cell.to_json(), "name": plan.cell.name, "norm": "linf"},
        "weights": {
            "total": total,
            "nonzero": kept,
            "dense": dense,
            "sparsity": 1 - kept / dense,
            "compression": dense / kept if kept else None,
            "layers": [layer.to_json() for layer in layers],
        },
        "files": {
            "onnx_sha256": plan.export.sha256,
            "masked_sha256": plan.export.masked_sha256,
            "onnx_bytes": plan.export.path.stat().st_size,
            "checkpoint_sha256": plan.export.checkpoint_sha256 or None,
        },
        "training": _training(card) if trained else None,
        "data": {
            **data,
            "images": plan.images,
            "indices": described["indices"],
            "images_sha256": images_sha256(plan.data, plan.images),
        },
        "protocol": {
            **{key: session[key] for key in ("suite", "profile", "suite_digest", "started", "versions")},
            "command": [_without_folder(word) for word in without_places(session["command"])],
            **{key: session[key] for key in ("machine", "device", "workers", "threads", "float32")},
            "asked": protocol.to_json(),
            "image_key": plan.image_key,
            "stages": described["stages"],
            "unsupported": described["unsupported"],
            "skipped": dict(session["skipped"]),
            "note": described["note"],
        },
        "result": {},
        "compaction": described["compaction"],
        "images": {
            "index": order,
            "label": [images[i].label for i in order],
            "predicted": [images[i].predicted for i in order],
            "correct": [images[i].correct for i in order],
        },
        "verdicts": {
            stage.verifier: _columns([row for i in order if isinstance(row := answers[key].get(i), VerdictRow)])
            for stage, key in zip(plan.stages, plan.keys, strict=True)
        },
        **({} if proofs is None else {"proofs": dict(proofs)}),
    }
    return seal(entry)


def _training(card: Mapping[str, Any]) -> dict[str, Any]:
    training = {key: card[key] for key in TRAINING}
    return {**training, "notes": card["notes"]} if card.get("notes") else training


def _without_folder(word: str) -> str:
    """Returns an argument without the folders of an absolute path: they say nothing to others, and may name people."""
    return Path(word).name if word.startswith(("/", "~")) else word


def _columns(rows: Sequence[VerdictRow]) -> dict[str, list[Any]]:
    return {
        "image": [row.image for row in rows],
        "status": [str(row.status) for row in rows],
        "seconds": [round(seconds(row.times), 6) for row in rows],
        "unstable": [row.unstable for row in rows],
        "domains": [row.domains for row in rows],
        "decided_in": [row.stage or None for row in rows],
    }


def seal(entry: Entry) -> Entry:
    """Fills in what follows from the rest: result, name and digest."""
    entry["result"] = recount(entry)
    entry["name"] = entry_name(entry)
    entry["digest"] = entry_digest(entry)
    return entry


def entry_name(entry: Mapping[str, Any]) -> str:
    """Returns the file's name: the cell's, and eight digits that stand for network, images and verifiers."""
    keys = [stage["key"] for stage in entry["protocol"]["stages"]]
    stem = re.sub(r"[^a-z0-9._-]+", "-", str(entry["cell"]["name"]).lower()).strip("-.") or "entry"
    return f"{stem[:100]}.{digest([keys, entry['data']['images']])[:8]}"


def entry_digest(entry: Mapping[str, Any]) -> str:
    """Returns the hash of everything but the digest itself: a slip of the hand is noticed, a forger is not."""
    return digest({key: value for key, value in entry.items() if key != "digest"})


def recount(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `result` as it follows from `images` and `verdicts`."""
    summary = summarise_cell(*as_rows(entry))
    return {**{key: summary[key] for key in RESULT}, "finished": summary["finished"]}


def as_rows(entry: Mapping[str, Any]) -> tuple[SessionCell, Rows]:
    """Returns the entry's cell and answers in the form that summaries are made from.

    Raises:
        UserError: A field is of another type, or out of its range.
    """
    protocol, images = entry["protocol"], entry["images"]
    cell = {
        **entry["cell"],
        "split": entry["data"]["split"],
        "images": entry["data"]["images"],
        "indices": entry["data"]["indices"],
        "data_fingerprint": entry["data"]["fingerprint"],
        "onnx_sha256": entry["files"]["onnx_sha256"],
        "masked_sha256": entry["files"].get("masked_sha256", entry["files"]["onnx_sha256"]),
        "compaction": entry.get("compaction"),
        "checkpoint_sha256": entry["files"]["checkpoint_sha256"],
        "measured_sparsity": entry["weights"]["sparsity"],
        "measured_compression": entry["weights"]["compression"],
        "multiply_adds": sparse_macs(entry["cell"]["network"], _kept_weights(entry), {}),
        **{key: protocol[key] for key in ("image_key", "stages", "unsupported", "note")},
    }
    rows = Rows()
    rows.correct[protocol["image_key"]] = dict(zip(images["index"], images["correct"], strict=True))
    rows.labels[protocol["image_key"]] = dict(zip(images["index"], images["label"], strict=True))
    for stage in protocol["stages"]:
        columns = (entry["verdicts"][stage["verifier"]][key] for key in COLUMNS[:5])
        for image, status, spent, unstable, domains in zip(*columns, strict=True):
            rows.answers[stage["key"]][image] = Answer(Status(status), spent, unstable, domains, stage["version"])
    try:
        return msgspec.convert(cell, SessionCell), rows
    except msgspec.ValidationError as error:
        where, reason = why(error)
        raise UserError(f"This entry's cell can't be counted: {where}: {reason}.") from error


def _kept_weights(entry: Mapping[str, Any]) -> list[tuple[Sequence[int], int]]:
    return [(layer["shape"], layer["weights"] - layer["zeros"]) for layer in entry["weights"]["layers"]]


def dump(entry: Mapping[str, Any]) -> str:
    """Returns the file's text: indented, with each list of plain values on one line, so that changes can be read."""
    return _dump(entry, 0) + "\n"


def _dump(value: Any, depth: int) -> str:
    pad, end = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, Mapping) and value:
        parts = (f"{json.dumps(str(key))}: {_dump(item, depth + 1)}" for key, item in value.items())
        return "{" + ",".join(pad + part for part in parts) + end + "}"
    if isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple) for item in value):
        return "[" + ",".join(pad + _dump(item, depth + 1) for item in value) + end + "]"
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def load_entry(path: Path) -> Entry:
    """Reads an entry's JSON; `bench.check` says whether it is valid.

    Raises:
        UserError: It is no plain file, cannot be read, is no JSON object, is no entry, or is of a newer schema.
    """
    shown = shortened(path)
    try:
        entry = decode(read_regular(path, MOST_BYTES))
    except (UserError, ValueError) as error:
        raise UserError(
            f"{shown}: file: this is no readable JSON file ({error}); restore it or submit the run again."
        ) from error
    if not isinstance(entry, dict) or entry.get("kind") != KIND:
        raise UserError(f"{shown}: kind: this is no leaderboard entry; prunecert run --submit writes them.")
    version = entry.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise UserError(
            f"{shown}: schema_version: {shortened(repr(version), 60)} is refused; it must be a whole number from 1 on."
        )
    if version > SCHEMA_VERSION:
        raise UserError(
            f"{shown}: schema_version: {version} is newer than this program reads ({SCHEMA_VERSION}); "
            "upgrade prunecert."
        )
    return entry


def entry_files(root: Path) -> list[Path]:
    """Returns the entries of a results tree, in the order of their names.

    Args:
        root: A folder with a folder ``leaderboard`` in it, or the folder of the entries itself.

    Raises:
        UserError: There is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"{shortened(root)} is refused: there is no such folder; give the results folder.")
    folder = root / "leaderboard" if (root / "leaderboard").is_dir() else root
    # Listed, not globbed: a glob finds nothing in a folder that may not be read, and says nothing.
    return sorted(path for path in folder.iterdir() if path.suffix == ".json")
