"""Changed result logs, summaries and baselines, given to everything that reads them.

``python -m tests.fuzz.rows 2000 1`` tries 2,000 changed files, drawn by the seed 1. Right is an answer, or a
`UserError`; anything else is printed with what was changed, and so is what takes over a minute. Each try changes one
to three fields: another type, nothing at all, a huge number, nesting, a name with control characters.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunecert.bench import baseline, retention
from prunecert.bench.comparison.sides import read_run
from prunecert.bench.gating import baseline_file
from prunecert.bench.gating.compare import compare
from prunecert.bench.gating.records import of_run
from prunecert.bench.report import html, shapes, table, timing_table
from prunecert.bench.results.merge import merge
from prunecert.bench.results.store import Log
from prunecert.bench.results.summary import summarise
from prunecert.bench.results.summary_types import read_summary
from prunecert.bench.results.timing import summarise_times
from prunecert.bench.results.timing_observations import read as read_times
from prunecert.bench.running.certificates import known_certificates
from prunecert.bench.running.recording import read_done
from prunecert.bench.running.reuse import read_earlier
from prunecert.bench.schema.gate import RuleSet
from prunecert.errors import UserError
from prunecert.hashing import digest
from tests.bench.rowkit import MACHINE, complete

SLOW_S = 60.0
Document = dict[str, Any]
_LAYER = {"name": "Conv_0", "operator": "Conv", "before": [16, 3, 4, 4], "after": [11, 3, 4, 4]}
_COMPACTION = {
    **{"schema_version": 1, "masked_sha256": "m", "domain": [0.0, 1.0], "exact": False, "layers": [_LAYER]},
    **{"relus": [100, 50], "folded": 1, "merged": 0},
}
_REPLAY = {"ok": True, "rationale": "it counts", "in_set": True, "outside": 0.0, "outputs": [0.5, "inf"]}
_SIZES = {"neurons": 9, "weights": 90, "nonzero": 9, "macs": 900, "sparse_macs": 90}
_NESTED: Any = 0
for _ in range(300):
    _NESTED = [_NESTED]
#: What a field becomes. Not all of it is JSON that `json` would write; see `_dump`.
HOSTILE: Sequence[Any] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1.5, -0.0, 1e308, -1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf"), "", "x", "unsat", "2/255", "1/0", "1e-99999999", "9" * 400),
    *("\x1b[2J", "a\n::error::b", "\ud800", "../../x", "x" * 5000, [], [0], ["x"], [None], {}, {"x": 1}, {"": {}}),
    *(_NESTED, {"a": [{"b": [{}]}]}, [[1, 2], [3]], [1, 2, 3, 4, 5, 6, 7, 8, 9]),
)


def run_rows() -> list[Document]:
    """Returns a run of two cells, with every kind of row that plain runs have."""
    stages = [{"verifier": name, "key": f"k-{name}", "everyone": name == "ibp"} for name in ("ibp", "bab")]
    cells = [
        {"name": "c", "images": 3, "stages": stages, "compaction": _COMPACTION, "card": {"recipe": {"lr": 0.1}}},
        {"name": "d", "images": 2, "indices": [1, 5], "image_key": "j", "pruner": "lwm", "compression": 10.0},
    ]
    cells[1]["stages"] = [{**stage, "key": f"{stage['key']}-d"} for stage in stages]
    rows: list[Document] = [{"type": "session", "cells": cells, "missing": [{"name": "e", "command": "train"}]}]
    for key, name, suffix, images in (("i", "c", "", (0, 1, 2)), ("j", "d", "-d", (1, 5))):
        for image in images:
            shared = {"cell": name, "image": image}
            rows.append({"type": "image", "key": key, **shared, "correct": image != 2})
            answer = {
                "type": "verdict",
                "question": f"{name}{image}",
                **shared,
                "times": {"wall_s": 0.5, "load_s": 0.1},
            }
            if image != 2:
                rows.append(
                    {**answer, "key": f"k-ibp{suffix}", "verifier": "ibp", "unstable": 3, "bounds": [0.5, None]}
                )
                last = {"status": "sat", "witness": "witnesses/a.npy", "witness_check": _REPLAY, "stage": "attack"}
                rows.append({**answer, "key": f"k-bab{suffix}", "verifier": "bab", "domains": 4, **last})
    rows[3]["status"] = "unsat"
    rows[-1] |= {"status": "unsat", "reused": {"run": "r", "started": "s", "id": "0"}}
    rows.append({"type": "end"})
    return [complete(row) for row in rows]


def timing_rows() -> list[Document]:
    """Returns a run of a timing suite."""
    stages = [{"verifier": name, "key": f"k-{name}"} for name in ("crown", "sparse-crown")]
    cells: list[Document] = []
    for name, pruner, ratio in (("c", "dense", 1.0), ("d", "lwm", 10.0)):
        keys = {stage["verifier"]: [f"{stage['key']}-{name}"] for stage in stages}
        timed = {"variant": "masked", "group": "g", "common": 3, "timing": {"repeats": 1}, "shapes": _SIZES}
        batches = {"crown": 1, "sparse-crown": 1}
        named = {"name": name, "pruner": pruner, "compression": ratio, "images": 3, "stages": stages}
        cells.append({**named, **timed, "keys": keys, "batches": batches})
    rows: list[Document] = [{"type": "session", "cells": cells}]
    for cell in cells:
        for verifier, (key,) in cell["keys"].items():
            rows.append({"type": "visit", "cell": cell["name"], "verifier": verifier})
            for image in range(3):
                times = {"wall_s": 0.5 + image}
                named = {"type": "verdict", "key": key, "cell": cell["name"], "verifier": verifier, "repeat": 1}
                rows.append({**named, "image": image, "status": "unsat", "times": times, "unstable": 4, "domains": 2})
    rows.append({"type": "end"})
    return [complete(row) for row in rows]


def certificate_rows() -> list[Document]:
    """Returns a run with certificates."""
    settings = {"sigma": 0.5, "n0": 10, "n": 100, "alpha": 0.01, "batch": 50, "seed": 0}
    certify = {
        **{"verifier": "smoothing", "version": "1", "settings": settings, "settings_hash": "h", "timeout": 9.0},
        **{"device": "cpu", "key": "s", "onnx_sha256": "o", "images": 3, "indices": None, "trained_sigma": 0.5},
    }
    certificate = {
        "predicted": 0,
        "count": 99,
        "n0": 10,
        "n": 100,
        "alpha": 0.01,
        "sigma": 0.5,
        "p_lower": 0.9,
        "radius": 0.6,
    }
    rows: list[Document] = [{"type": "session", "cells": [{"certify": certify, "images": 3}]}]
    rows += [{"type": "image", "image": image} for image in range(3)]
    rows += [{"type": "certificate", "key": "s", "image": 0, "certificate": certificate, "times": {"wall_s": 0.2}}]
    rows += [{"type": "certificate", "key": "s", "image": 1, "status": "error", "detail": "it died"}]
    return [complete(row) for row in rows]


def pair_rows() -> list[Document]:
    """Returns a run that asks about a pair, whose answers and verdicts contradict each other."""
    verdicts = [{"verifier": "bab", "key": key} for key in ("k-c", "k-d")]
    sessions = [complete({"type": "session", "cells": [{"stages": [{"verifier": "sparse-pair", "key": "p"}]}]})]
    pair = {
        **{"partner": "d", "step": False, "alike": "class", "onnx_sha256": "o", "images": 2, "indices": None},
        **{"stages": sessions[0]["cells"][0]["stages"], "unsupported": {}},
    }
    pruned = {"name": "c", "images": 2, "image_key": "j", "pruner": "lwm", "stages": verdicts[:1], "pairs": [pair]}
    rows: list[Document] = [{"type": "session", "cells": [pruned, {"name": "d", "images": 2, "stages": verdicts[1:]}]}]
    for key, name, stage, status in (("j", "c", "k-c", "sat"), ("i", "d", "k-d", "unsat")):
        for image in range(2):
            rows.append({"type": "image", "key": key, "cell": name, "image": image})
            answer = {"type": "verdict", "key": stage, "cell": name, "image": image, "verifier": "bab"}
            rows.append({**answer, "status": status, "question": f"{name}{image}"})
    rows += [{"type": "pair", "key": "p", "image": 0, "status": "unsat", "times": {"wall_s": 0.2}}]
    rows += [
        {"type": "pair", "key": "p", "image": 1, "question": "r", "status": "sat", "witness": "witnesses/a.npy"},
        {"type": "end"},
    ]
    return [complete(row) for row in rows]


def property_rows() -> list[Document]:
    """Returns results of `bench.verify`."""
    session = {"type": "session", "suite": "bench.verify", "verifiers": [{"name": "ibp"}]}
    answer = {"type": "property", "status": "sat", "counterexample": "x/y.counterexample.gz", "times": {"wall_s": 1.0}}
    return [complete(row) for row in (session, answer, {**answer, "id": "1", "settings": {"seed": 0}})]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns the paths of all values in plain data, the outermost first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in _places(item, (*path, key)))]


def change(document: Any, draw: random.Random) -> str:
    """Changes one value of plain data in place; returns what was done."""
    path = draw.choice([place for place in _places(document) if place])
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    kind = draw.randrange(8)
    if kind == 0:
        del parent[path[-1]]
        return f"{path} deleted"
    if kind == 1 and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[path[-1]]))
        return f"{path} doubled"
    parent[path[-1]] = copy.deepcopy(draw.choice(HOSTILE))
    return f"{path} = {parent[path[-1]]!r:.60}"


def _dump(value: Any) -> bytes:
    # Half a surrogate pair as an escape, NaN and Infinity as Python's own writer writes them.
    return json.dumps(value).encode()


def _show_all(out: Path) -> None:
    summary = summarise(out)
    table.markdown(summary)
    shapes.of_summary(summary)
    json.dumps(summary, allow_nan=False)
    (out / "summary.json").write_text(json.dumps(summary))
    read_summary(out / "summary.json")


def _page(out: Path) -> None:
    html.render({**summarise(out), "cells": summarise(out)["cells"][:1]})


def _baseline(out: Path) -> None:
    target = out / "b.json"
    words = ["--run", str(out), "--out", str(target), "--reason", "x", "--allow-unpublishable", "--allow-errors"]
    baseline.main(words)
    compare(baseline_file.read(target), of_run(out), RuleSet())


def _times(out: Path) -> None:
    numbers = summarise_times(read_times(out))
    timing_table.markdown(numbers)
    json.dumps(numbers, allow_nan=False)


def _merge(out: Path) -> None:
    merge([out], out / "merged")
    list(Log(out / "merged").rows())


def _verify(out: Path) -> None:
    for row in Log(out).properties():
        _ = row["id"], row["status"], row["problem"], row["onnx"], row["vnnlib"]


READERS: Mapping[str, Callable[[Path], object]] = {
    "resume": lambda out: read_done(out, frozenset()),
    "certificates": lambda out: known_certificates(out, frozenset()),
    "summary": _show_all,
    "baseline": _baseline,
    "merge": _merge,
    "times": _times,
    "reuse": lambda out: read_earlier([out], MACHINE, "cpu"),
    "sides": lambda out: read_run(out, {"c": "a" * 64}),
    "sessions": lambda out: Log(out).sessions(),
    "verify": _verify,
}
LOGS: Sequence[Callable[[], list[Document]]] = (run_rows, timing_rows, certificate_rows, pair_rows, property_rows)


def _attempt(read: Callable[[Path], object], out: Path) -> str | None:
    """Returns what was wrong with an answer: a traceback, or the time that it took; None if nothing was."""
    began = time.monotonic()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            read(out)
    except UserError as error:
        if not str(error) or "\n" in str(error):
            return f"a message that is no sentence: {error!r:.200}"
    except Exception:
        return traceback.format_exc()
    spent = time.monotonic() - began
    return f"took {spent:.1f} s" if spent > SLOW_S else None


def try_log(draw: random.Random, folder: Path) -> list[str]:
    """Changes a log and gives it to every reader; returns what went wrong."""
    rows = draw.choice(LOGS)()
    edits = [change(rows, draw) for _ in range(draw.choice((1, 1, 2, 3)))]
    lines = [_dump(row) for row in rows]
    if draw.random() < 0.1:
        place = draw.randrange(len(lines))
        lines[place] = lines[place][: draw.randrange(len(lines[place]))]
    wrong = []
    readers = {**READERS, **({"page": _page} if draw.random() < 0.15 else {})}
    for name, read in readers.items():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "instances.main.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        if (problem := _attempt(read, folder)) is not None:
            wrong.append(f"{name}: {'; '.join(edits)}\n{problem}")
    return wrong


def try_summary(draw: random.Random, folder: Path) -> list[str]:
    """Changes a summary and gives it to `bench.retention`."""
    folder.mkdir(exist_ok=True)
    path = folder / "instances.main.jsonl"
    path.write_bytes(b"\n".join(_dump(row) for row in draw.choice((run_rows, certificate_rows, pair_rows))()) + b"\n")
    data = summarise(folder)
    edit = change(data, draw)
    target = folder / "summary.json"
    target.write_bytes(_dump(data))
    problem = _attempt(lambda out: retention.main([str(out / "summary.json")]), folder)
    return [] if problem is None else [f"retention: {edit}\n{problem}"]


def try_baseline(draw: random.Random, folder: Path) -> list[str]:
    """Changes a baseline, with the digest that it then needs, and holds the run that it was made of to it."""
    folder.mkdir(exist_ok=True)
    (folder / "instances.main.jsonl").write_bytes(b"\n".join(_dump(row) for row in _finished()) + b"\n")
    run = of_run(folder)
    data = json.loads(json.dumps(baseline_file.to_json(run)))
    edit = change(data, draw)
    data.pop("digest", None)
    with contextlib.suppress(ValueError, RecursionError):
        data["digest"] = digest(data)
    target = folder / "b.json"
    target.write_bytes(_dump(data))
    problem = _attempt(lambda out: compare(baseline_file.read(out / "b.json"), run, RuleSet()).to_json(), folder)
    return [] if problem is None else [f"baseline: {edit}\n{problem}"]


def _finished() -> list[Document]:
    # Without the contradiction, which no baseline may hold.
    return [{**row, "status": "unknown"} if row.get("status") == "sat" else row for row in run_rows()]


def fuzz(tries: int, seed: int) -> list[str]:
    """Returns what went wrong in so many tries.

    Args:
        tries: Files that are changed.
        seed: Decides which and how.
    """
    draw = random.Random(seed)
    wrong = []
    with tempfile.TemporaryDirectory(prefix="fuzz-rows-") as scratch:
        for number in range(tries):
            attempt = draw.choice((try_log, try_log, try_log, try_summary, try_baseline))
            folder = Path(scratch) / "run"
            shutil.rmtree(folder, ignore_errors=True)
            wrong += [f"try {number}: {problem}" for problem in attempt(draw, folder)]
    return wrong


def main(arguments: Sequence[str]) -> int:
    """Runs the command: ``python -m tests.fuzz.rows TRIES SEED``."""
    tries, seed = int(arguments[0]), int(arguments[1])
    began = time.monotonic()
    wrong = fuzz(tries, seed)
    for problem in wrong:
        print(problem)
    print(f"{tries} changed files, seed {seed}: {len(wrong)} wrong answers, in {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
