"""Sessions and answers of made-up runs, and what is summed up from them."""

from __future__ import annotations

from typing import Any

from prunecert.bench.results.summary import Rows, summary_of
from tests.bench.rowkit import all_typed

STAGES = [
    {"verifier": "ibp", "key": "k-ibp", "everyone": True},
    {"verifier": "pgd", "key": "k-pgd", "everyone": True},
    {"verifier": "bab", "key": "k-bab", "everyone": False},
]


NASTY = "<script>alert(1)</script>"


def cell(name: str = "c", pruner: str = "dense", compression: float = 1.0, images: int = 6) -> dict[str, Any]:
    """Returns a session's cell that three verifiers are asked about."""
    details = {"kind": "complete", "version": "1", "source": "", "settings": {}, "settings_hash": "0", "timeout": 9.0}
    return {
        "name": name,
        "network": "cnn-small",
        "objective": "ibp",
        "eps": "2/255",
        "pruner": pruner,
        "compression": compression,
        "seed": 0,
        "split": "test",
        "onnx_sha256": "a" * 64,
        "checkpoint_sha256": "b" * 64,
        "data_fingerprint": "f" * 64,
        "measured_sparsity": 1 - 1 / compression,
        "measured_compression": compression,
        "images": images,
        "indices": None,
        "image_key": f"i-{name}",
        "stages": [{**s, **details, "key": f"{s['key']}-{name}", "device": "cpu", "memory_mb": None} for s in STAGES],
        "unsupported": {},
        "note": "",
    }


def session(*cells: dict[str, Any]) -> dict[str, Any]:
    """Returns the session of a made-up run."""
    return {
        "type": "session",
        "schema_version": 1,
        "writer": "main",
        "started": "2026-01-01T00:00:00Z",
        "command": ["python", "-m", "bench.run", "--suite", NASTY],
        "suite": "tiny",
        "profile": "default",
        "suite_digest": "0",
        "description": f"a {NASTY}",
        "data": [{"split": "test", "fingerprint": "f", "official": True, "sample": False, "source": "CIFAR-10"}],
        "versions": {"torch": "2"},
        "machine": {"cpu": "x", "cores": 2, "memory_gib": 4.0, "system": "Linux"},
        "device": "cpu",
        "workers": 2,
        "threads": 1,
        "float32": "TF32 off",
        "unpublishable": [],
        "missing": [{"name": "later", "command": "python -m bench.train --cells later"}],
        "skipped": {},
        "cells": list(cells),
    }


def image(index: int, correct: bool = True, name: str = "c") -> dict[str, Any]:
    """Returns the row of an image."""
    return {"type": "image", "key": f"i-{name}", "image": index, "correct": correct}


def verdict(
    verifier: str, index: int, status: str, seconds: float = 1.0, name: str = "c", **more: Any
) -> dict[str, Any]:
    """Returns the row of an answer."""
    return {
        "type": "verdict",
        "key": f"k-{verifier}-{name}",
        "question": f"{name}{index}",
        "cell": name,
        "image": index,
        "verifier": verifier,
        "version": "1",
        "status": status,
        "times": {"wall_s": seconds + 0.5, "load_s": 0.5, "start_s": 100.0},
        **more,
    }


def summarise(*rows: dict[str, Any]) -> dict[str, Any]:
    """Returns what these rows amount to."""
    log = Rows()
    log.add(all_typed(rows))
    return summary_of(log)


def everything() -> list[dict[str, Any]]:
    """Image 0 wrong; 1 proved by ibp; 2 proved by bab; 3 broken by pgd; 4 undecided after an error; 5 timed out."""
    rows = [image(0, correct=False), *(image(i) for i in range(1, 6))]
    rows += [verdict("ibp", i, "unsat" if i == 1 else "unknown", 0.001) for i in range(1, 6)]
    rows += [verdict("pgd", i, "sat" if i == 3 else "unknown", 0.01) for i in range(1, 6)]
    rows += [verdict("bab", 2, "unsat", 4.0), verdict("bab", 4, "error"), verdict("bab", 5, "timeout", 9.0)]
    return rows


def pruned() -> dict[str, Any]:
    """Returns the summary of a dense cell, two pruned ones and one without any answer."""
    cells = [cell(), cell("d", "lwm", 10.0), cell("e", NASTY, 10.0), cell("empty", "lwm", 100.0, images=5)]
    rows = [*everything()]
    for name in ("d", "e"):
        rows += [image(i, name=name) for i in range(6)]
        rows += [verdict(v, i, "unsat", name=name) for v in ("ibp", "pgd") for i in range(6)]
    return summarise(session(*cells), *rows)
