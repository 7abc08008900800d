"""Judges an entry's answers: by the suite that it names, verdict by verdict, and what is counted from them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from prunecert.bench.leaderboard.entry import RESULT, Entry, recount
from prunecert.bench.leaderboard.suites import shipped_suite
from prunecert.bench.planning.card import card_protocol
from prunecert.bench.results.outcome import disputes
from prunecert.bench.schema.cell import parse_eps
from prunecert.bench.schema.suite import Suite
from prunecert.errors import UserError
from prunecert.hashing import digest
from prunecert.printable import shortened
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind, Status

#: A verifier is killed at the latest so many seconds beyond its limit (`verifiers.process.worker.Worker`).
GRACE_S = 5.0


def judge_protocol(entry: Entry) -> Iterator[tuple[str, str]]:
    """Judges verifiers, limits and settings by what the suite asks for."""
    protocol, data = entry["protocol"], entry["data"]
    rules = protocol["asked"]
    if data["images"] != rules["images"]:
        yield "data.images", f"{data['images']} images; the suite asks for {rules['images']}: a truncated run"
    if data["split"] != rules["split"]:
        yield "data.split", f"{data['split']!r}; the suite asks for {rules['split']!r}"
    names = [stage["verifier"] for stage in protocol["stages"]]
    if not names or len(set(names)) < len(names):
        yield "protocol.stages", "there must be at least one verifier, and none twice"
    # Certificates that hold with a probability are no verdicts, whoever submits them.
    kinds = [str(kind) for kind in Kind if kind is not Kind.PROBABILISTIC]
    for number, stage in enumerate(protocol["stages"]):
        name, path = stage["verifier"], f"protocol.stages[{number}]"
        limit = rules["timeouts"].get(name)
        if limit is None:
            yield f"{path}.verifier", f"{name!r:.60} is refused: the suite sets no time limit for it, so it isn't asked"
        elif stage["timeout"] != limit:
            yield f"{path}.timeout", f"{stage['timeout']} s; the suite's limit is {limit} s"
        if stage.get("memory_mb") != rules.get("memory_mb"):
            yield f"{path}.memory_mb", f"{stage.get('memory_mb')}; the suite's limit is {rules.get('memory_mb')}"
        if stage["everyone"] != (name in rules["cross_check"]):
            yield f"{path}.everyone", "it must be true for verifiers of the suite's cross_check, false for all others"
        if stage["kind"] not in kinds:
            yield f"{path}.kind", f"{stage['kind']!r:.60} is refused; allowed are {', '.join(kinds)}"
        elif name in VERIFIERS and VERIFIERS.get(name).kind != stage["kind"]:
            # Were it believed, an attack could prove, and a bound break.
            yield f"{path}.kind", f"{stage['kind']!r} is refused; {name} is {str(VERIFIERS.get(name).kind)!r}"
        for key, value in rules.get("settings", {}).get(name, {}).items():
            if key not in stage["settings"] or digest(stage["settings"][key]) != digest(value):
                yield f"{path}.settings.{key}", f"the suite asks for {shortened(repr(value), 60)}"
    suite = shipped_suite(protocol["suite"], protocol["profile"])
    if suite is not None and suite.digest() == protocol["suite_digest"]:
        yield from _of_suite(entry, suite)


def _of_suite(entry: Entry, suite: Suite) -> Iterator[tuple[str, str]]:
    """Judges an entry by a suite that ships, in the very edition that the entry names."""
    cells = {cell.name: (cell, p) for cell, p in suite.cells}
    stated, claimed = entry["protocol"]["asked"], entry["cell"]
    for number, stage in enumerate(entry["protocol"]["stages"]):
        if stage["verifier"] not in VERIFIERS:
            yield f"protocol.stages[{number}].verifier", f"{stage['verifier']!r:.60} is none that the suite could name"
    if claimed["name"] in cells:
        cell, rule = cells[claimed["name"]]
        for key, value in cell.to_json().items():
            if claimed[key] != value:
                yield f"cell.{key}", f"{claimed[key]!r:.60}; the suite's cell {cell.name} has {value!r}"
    else:
        try:
            rule = card_protocol(suite, claimed["network"], parse_eps(claimed["eps"]))
        except UserError:
            return  # The radius is no number; that has been said.
    if digest(stated) != digest(rule.to_json()):
        different = [key for key, value in rule.to_json().items() if digest(stated.get(key)) != digest(value)]
        yield (
            f"protocol.asked.{different[0] if different else ''}",
            f"this is not what suite {suite.name!r} asks for",
        )


def judge_verdicts(entry: Entry) -> Iterator[tuple[str, str]]:
    """Judges each verifier's answers by themselves."""
    stages = {stage["verifier"]: stage for stage in entry["protocol"]["stages"]}
    correct = {i for i, ok in zip(entry["images"]["index"], entry["images"]["correct"], strict=False) if ok}
    statuses = {str(status) for status in Status}
    if set(entry["verdicts"]) != set(stages):
        yield "verdicts", f"there must be one set of answers for each of {', '.join(stages)}"
    for name in entry["verdicts"].keys() & stages.keys():
        columns, stage, path = entry["verdicts"][name], stages[name], f"verdicts.{name}"
        if len({len(column) for column in columns.values()}) > 1:
            yield path, "its columns differ in length"
            continue
        if len(set(columns["image"])) < len(columns["image"]):
            yield f"{path}.image", "an image stands there twice"
        foreign = set(columns["image"]) - correct
        if foreign:
            yield f"{path}.image", f"image {min(foreign)} is not one that is classified correctly"
        for image, status, seconds in zip(columns["image"], columns["status"], columns["seconds"], strict=True):
            if status not in statuses:
                yield (
                    f"{path}.status",
                    f"image {image}: {status!r:.40} is refused; allowed are {', '.join(sorted(statuses))}",
                )
            elif (stage["kind"], status) in ((Kind.ATTACK, "unsat"), (Kind.INCOMPLETE, "sat")):
                yield (
                    f"{path}.status",
                    f"image {image}: {status!r} cannot come from a verifier of kind {stage['kind']!r}",
                )
            if not 0 <= seconds <= stage["timeout"] + GRACE_S:
                yield (
                    f"{path}.seconds",
                    f"image {image}: {seconds:g} s are not within the limit of {stage['timeout']:g} s",
                )


def judge_result(entry: Entry) -> Iterator[tuple[str, str]]:
    """Judges the counts by what follows from images and verdicts."""
    claims = (
        (image, status, name)
        for name, columns in entry["verdicts"].items()
        for image, status in zip(columns["image"], columns["status"], strict=True)
    )
    for image, proving, breaking in sorted(disputes(claims)):
        yield (
            f"verdicts.{proving[0]}",
            f"image {image}: {proving[0]} proves it, {breaking[0]} breaks it: a contradiction",
        )
    counts = recount(entry)
    if not counts["finished"]:
        yield "verdicts", "answers are missing for correctly classified images: a truncated run"
    for key in (*RESULT, "finished"):
        yield from _differences(entry["result"][key], counts[key], f"result.{key}")


def _differences(claimed: Any, counted: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(counted, Mapping) and isinstance(claimed, Mapping):
        for key in dict.fromkeys((*counted, *claimed)):
            yield from _differences(claimed.get(key), counted.get(key), f"{path}.{key}")
    elif isinstance(counted, float) and isinstance(claimed, int | float):
        if not math.isclose(claimed, counted, rel_tol=1e-9, abs_tol=1e-12):
            yield path, f"{claimed!r} is written, but {counted!r} follows from images and verdicts"
    elif claimed != counted or type(claimed) is not type(counted):
        yield path, f"{claimed!r:.60} is written, but {counted!r:.60} follows from images and verdicts"
