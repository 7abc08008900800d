"""Made-up leaderboard entries, valid in every field: what a test needs to be wrong, it makes wrong itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from prunecert.bench.leaderboard.entry import Entry, dump, seal
from prunecert.bench.planning.plan import image_key, stage_key
from prunecert.bench.schema.cell import parse_eps
from prunecert.hashing import digest
from tests.bench import boards

IMAGES = 60


def with_proofs(**columns: list[Any]) -> Entry:
    """Returns an entry that says that its first proved image has a certificate, or what the columns say."""
    entry = make()
    answers = next(c for c in entry["verdicts"].values() if "unsat" in c["status"])
    image = answers["image"][answers["status"].index("unsat")]
    entry["proofs"] = {"image": [image], "status": ["unsat"], "sha256": ["0" * 64], "size": [90], **columns}
    return seal(entry)


def make(
    pruner: str = "lwm",
    compression: float = 10.0,
    *,
    network: str = "cnn-small",
    objective: str = "ibp",
    eps: str = "2/255",
    seed: int = 0,
    by: str = "tester",
    title: str = "",
    verifiers: tuple[str, ...] = ("ibp", "pgd"),
    luck: int = 0,
    name: str | None = None,
    images: int = IMAGES,
    source: str = "CIFAR-10",
) -> Entry:
    """Returns an entry on the first `images` of a data set; image 0 is misclassified, answers follow from `luck`."""
    rng = random.Random(f"{pruner} {compression} {network} {objective} {eps} {seed} {luck}")
    onnx = digest([network, objective, eps, pruner, compression, seed, by])
    fingerprint = digest("images" if source == "CIFAR-10" else source)
    kept = round(1000 / compression)
    key = image_key(onnx, fingerprint, "test")
    stages = []
    for verifier in verifiers:
        attack = verifier == "pgd"
        settings = {"steps": 20} if attack else {"method": verifier}
        print_ = digest(settings)[:12]
        stages.append(
            {
                "verifier": verifier,
                "kind": "attack" if attack else "incomplete",
                "version": "1.0",
                "source": "tests",
                "settings": settings,
                "settings_hash": print_,
                "timeout": 30.0,
                "device": "cpu",
                "everyone": True,
                "memory_mb": None,
                "key": stage_key(key, parse_eps(eps), verifier, "1.0", print_, 30.0),
            }
        )
    count, indices = images, list(range(images))
    correct = [i > 0 for i in indices]
    proved = {i for i in indices[1:] if rng.random() < 0.5}
    broken = {i for i in indices[1:] if i not in proved and rng.random() < 0.4}
    answers = {}
    for verifier in verifiers:
        attack = verifier == "pgd"
        answers[verifier] = {
            "image": indices[1:],
            "status": [
                ("sat" if i in broken else "unknown") if attack else ("unsat" if i in proved else "unknown")
                for i in indices[1:]
            ],
            "seconds": [round(rng.uniform(0.001, 2.0), 6) for _ in indices[1:]],
            "unstable": [None if attack else rng.randrange(50, 300) for _ in indices[1:]],
            "domains": [None] * (count - 1),
            "decided_in": [None] * (count - 1),
        }
    entry: Entry = {
        "schema_version": 1,
        "kind": "leaderboard-entry",
        "name": "",
        "digest": "",
        "by": by,
        "method": {"title": title, "url": "", "notes": ""},
        "cell": {
            "network": network,
            "objective": objective,
            "eps": eps,
            "pruner": pruner,
            "compression": compression,
            "seed": seed,
            "name": name or f"{network}_{objective}_eps{eps.replace('/255', '')}_{pruner}_x{compression:g}_s{seed}",
            "norm": "linf",
        },
        "weights": {
            "total": 1000,
            "nonzero": kept,
            "dense": 1000,
            "sparsity": 1 - kept / 1000,
            "compression": 1000 / kept,
            "layers": [
                {"name": "Conv_0", "kind": "Conv", "shape": [1, 3, 2, 1], "weights": 6, "zeros": 0},
                {"name": "Gemm_1", "kind": "Gemm", "shape": [142, 7], "weights": 994, "zeros": 1000 - kept},
            ],
        },
        "files": {"onnx_sha256": onnx, "onnx_bytes": 4321, "checkpoint_sha256": None},
        "training": {
            "command": "python -m bench.train --suite made-up",
            "recipe": {"lr": 0.1},
            "device": "cpu",
            "train_seconds": 12.5,
            "versions": {"torch": "2"},
            "data_fingerprint": digest("training images"),
            "mask_sha256": digest("masks"),
        },
        "data": {
            "split": "test",
            "fingerprint": fingerprint,
            "official": True,
            "sample": False,
            "source": source,
            "images": count,
            "indices": None,
            "images_sha256": digest("first images"),
        },
        "protocol": {
            "suite": "made-up",
            "profile": "default",
            "suite_digest": digest("suite"),
            "command": ["python", "-m", "bench.run", "--suite", "made-up"],
            "started": "2026-01-01T00:00:00Z",
            "versions": {"python": "3.11"},
            "machine": {"cpu": "x", "cores": 2, "memory_gib": 4.0, "system": "Linux", "architecture": "x86_64"},
            "device": "cpu",
            "workers": 1,
            "threads": 2,
            "float32": "TF32 off",
            "asked": {
                "split": "test",
                "images": count,
                "cascade": list(verifiers),
                "cross_check": list(verifiers),
                "timeouts": dict.fromkeys(verifiers, 30.0),
                "settings": {},
                "memory_mb": None,
                "note": "",
            },
            "image_key": key,
            "stages": stages,
            "unsupported": {},
            "skipped": {},
            "note": "",
        },
        "result": {},
        "images": {
            "index": indices,
            "label": [i % 10 for i in indices],
            "predicted": [5 if i == 0 else i % 10 for i in indices],
            "correct": correct,
        },
        "verdicts": answers,
    }
    return seal(entry)


def larger(entry: Entry, images: int) -> dict[str, Any]:
    """Returns the summary of a run of an entry's network over more images, of which nine tenths are correct."""
    from prunecert.bench.results.stats import wilson

    def share(k: int) -> dict[str, Any]:
        low, high = wilson(k, images)
        return {"k": k, "n": images, "value": k / images, "low": low, "high": high}

    verified, undecided, count = images // 2, images // 20, entry["data"]["images"]
    assert verified <= entry["result"]["attacked"]["k"] + images - count
    protocol, files = entry["protocol"], entry["files"]
    cell = {
        **{key: value for key, value in entry["cell"].items() if key != "norm"},
        "split": "test",
        "sparsity": entry["weights"]["sparsity"],
        "measured_compression": entry["weights"]["compression"],
        "onnx_sha256": files["onnx_sha256"],
        "masked_sha256": files["onnx_sha256"],
        "compaction": None,
        "checkpoint_sha256": files["checkpoint_sha256"],
        "data_fingerprint": entry["data"]["fingerprint"],
        "images": images,
        "images_asked": images,
        "finished": True,
        "pending": 0,
        "clean": share(images * 9 // 10),
        "verified": share(verified),
        "attacked": share(verified + undecided),
        "undecided": {"total": undecided, "timeout": undecided},
        "decided_by": {"ibp": {"unsat": verified, "sat": 0}},
        "time": {"median_s": 0.25, "p90_s": 1.0, "total_s": 99.0, "images": images * 9 // 10},
        "by_verifier": {},
        "unsupported": {},
        "note": "",
    }
    head = {key: protocol[key] for key in ("suite", "profile", "suite_digest", "command", "started", "versions")}
    return {
        "schema_version": 1,
        "kind": "summary",
        **head,
        "description": "made up",
        "data": [{key: entry["data"][key] for key in ("split", "fingerprint", "official", "sample", "source")}],
        **{key: protocol[key] for key in ("machine", "device", "workers", "threads", "float32", "skipped")},
        "sessions": 1,
        "devices": ["cpu"],
        "finished": True,
        "publishable": True,
        "unpublishable": [],
        "confidence": 0.95,
        "cells": [cell],
        "certificates": [],
        "missing": [],
        "contradictions": [],
        "broken_verifiers": [],
    }


def rekey(entry: Entry) -> None:
    """Makes the keys of an entry fit its stages again."""
    protocol = entry["protocol"]
    for stage in protocol["stages"]:
        stage["settings_hash"] = digest(stage["settings"])[:12]
        stage["key"] = stage_key(
            protocol["image_key"],
            parse_eps(entry["cell"]["eps"]),
            stage["verifier"],
            stage["version"],
            stage["settings_hash"],
            stage["timeout"],
        )


def write(folder: Path, *entries: Entry) -> Path:
    """Writes entries into ``leaderboard`` in a results folder, which is returned."""
    board = folder / "leaderboard"
    board.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        (board / f"{entry['name']}.json").write_text(dump(entry), encoding="utf-8")
    return folder


def small_board() -> list[Entry]:
    """Two networks, dense and pruned, at two radii."""
    entries: list[Any] = []
    for network in ("cnn-small", "cnn-large"):
        for eps in ("2/255", "8/255"):
            entries.append(make("dense", 1.0, network=network, eps=eps))
            for pruner in ("lwm", "hydra"):
                entries += [make(pruner, ratio, network=network, eps=eps) for ratio in (2.0, 10.0, 100.0)]
    return entries


NASTY = "<script>alert(1)</script>"


QUOTED = "\"'><img src=x onerror=alert(1)>"


def nasty_board() -> list[Entry]:
    """Returns the small board and entries whose texts are tags, scripts and formulas."""
    entries = boards.small_board()
    entries.append(boards.make(NASTY, 20.0, network=QUOTED, objective=NASTY, by=NASTY, title=NASTY, name="nasty"))
    entries.append(boards.make("dense", 1.0, network=QUOTED, objective=NASTY, by=NASTY, name="nasty-dense"))
    entries.append(boards.make("attack-only", 4.0, verifiers=("pgd",), by="=1+1", title="@SUM(A1)"))
    entries[-3]["method"].update(url="https://example.org/?a=1&b=2", notes=NASTY)
    entries[-3]["protocol"]["command"].append(NASTY)
    entries[-3]["weights"]["layers"][0]["name"] = NASTY
    entries[-3] = seal(entries[-3])
    return entries
