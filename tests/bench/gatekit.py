"""Snapshots for the gate's tests, written down by hand or drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from msgspec import structs

from prunecert.bench.gating.compare import compare
from prunecert.bench.gating.records import AnswerRecord, CellRecord, ImageRecord, Snapshot
from prunecert.bench.gating.result import GateResult
from prunecert.bench.results.baseline_types import Head, HistoryEntry
from prunecert.bench.results.decode import build, plain
from prunecert.bench.results.protocol_types import StageSettings
from prunecert.bench.results.session_types import CellInfo
from prunecert.bench.schema.gate import RuleSet
from prunecert.verifiers.base import Kind
from tests.bench.rowkit import MACHINE

NAME = "cnn-small_ibp_eps2_lwm_x10_s0"
OTHER = "a" * 64
#: Verifier, limit in seconds, whether it sees decided images.
STAGES = (("ibp", 10.0, True), ("pgd", 10.0, True), ("bab", 20.0, False))
Answers = Mapping[str, tuple[str, float]]

#: What an image can be, as answers; None is misclassified.
PROVED: Answers = {"ibp": ("unsat", 0.01), "pgd": ("unknown", 0.1)}
SEARCHED: Answers = {"ibp": ("unknown", 0.01), "pgd": ("unknown", 0.1), "bab": ("unsat", 4.0)}
SLOW: Answers = {"ibp": ("unknown", 0.01), "pgd": ("unknown", 0.1), "bab": ("unsat", 12.0)}
TIMEOUT: Answers = {"ibp": ("unknown", 0.01), "pgd": ("unknown", 0.1), "bab": ("timeout", 20.0)}
ERROR: Answers = {"ibp": ("unknown", 0.01), "pgd": ("unknown", 0.1), "bab": ("error", 3.0)}
BROKEN: Answers = {"ibp": ("unknown", 0.01), "pgd": ("sat", 0.1)}
MISCLASSIFIED = None


def stages() -> tuple[StageSettings, ...]:
    return tuple(
        StageSettings(
            verifier=name,
            kind=Kind.COMPLETE,
            version="1.0",
            source="tests",
            settings={"steps": 3},
            timeout=limit,
            device="cpu",
            everyone=everyone,
            memory_mb=None,
        )
        for name, limit, everyone in STAGES
    )


def cell(*images: Answers | None, name: str = NAME, onnx: str = "b" * 64, **info: Any) -> CellRecord:
    """Returns a cell whose images are numbered from 0; the same image has the same question under one network."""
    data = {
        "name": name,
        "network": "cnn-small",
        "objective": "ibp",
        "eps": "2/255",
        "pruner": "lwm",
        "compression": 10.0,
        "seed": 0,
        "split": "test",
        "images": len(images),
        "indices": None,
        "data_fingerprint": "f" * 64,
        "onnx_sha256": onnx,
        "checkpoint_sha256": "c" * 64,
        "measured_sparsity": 0.9,
        "measured_compression": 10.0,
        "unsupported": {},
        "note": "",
        **info,
    }
    records = {}
    for index, answers in enumerate(images):
        by_verifier = {name: AnswerRecord(*answer) for name, answer in (answers or {}).items()}
        question = f"{onnx[:4]}-{index}" if by_verifier else None
        details = {name: "it crashed" for name, answer in by_verifier.items() if answer.status == "error"}
        records[index] = ImageRecord(index, index % 10, answers is not None, question, by_verifier, details)
    return CellRecord(build(CellInfo, data), stages(), records)


def snapshot(*cells: CellRecord, **head: Any) -> Snapshot:
    """Returns a snapshot of cells; `head` replaces what stands in its head."""
    return Snapshot(
        head=head_of(
            {
                "suite": "tiny",
                "profile": "default",
                "command": ["python", "-m", "bench.run", "--suite", "tiny"],
                "started": "2026-01-01T00:00:00Z",
                "data": [{"split": "test", "fingerprint": "f" * 64, "official": True, "sample": False, "source": "x"}],
                "versions": {"torch": "2", "python": "3.11"},
                "device": "cpu",
                "workers": 2,
                "threads": 1,
                "float32": "TF32 off",
                "machines": [{"cpu": "x", "cores": 2, "architecture": "x86_64"}],
                "devices": ["cpu"],
                "skipped": {},
                **head,
            }
        ),
        cells={one.name: one for one in cells},
        history=(HistoryEntry(date="2026-01-01T00:00:00Z", reason="first", run_started="", cells={}),),
    )


def head_of(fields: Mapping[str, Any]) -> Head:
    """Returns a head of plain data; its machines need no more than a processor."""
    machines = [{**MACHINE, **machine} for machine in fields["machines"]]
    return build(Head, {**fields, "machines": machines})


def with_head(snapshot: Snapshot, **changed: Any) -> Snapshot:
    """Returns the snapshot with something of its head changed."""
    return replace(snapshot, head=head_of({**plain(snapshot.head), "skipped": snapshot.head.skipped, **changed}))


def pair(
    base: Sequence[Answers | None], run: Sequence[Answers | None], same: bool = False
) -> tuple[Snapshot, Snapshot]:
    """Returns a baseline and a run of one cell, of other weights unless `same`."""
    return snapshot(cell(*base)), snapshot(cell(*run, onnx="b" * 64 if same else OTHER))


def with_stage(snapshot: Snapshot, verifier: str, **changed: Any) -> Snapshot:
    """Returns the snapshot with one verifier's protocol changed in every cell."""
    cells = {
        name: replace(
            one, stages=tuple(structs.replace(s, **changed) if s.verifier == verifier else s for s in one.stages)
        )
        for name, one in snapshot.cells.items()
    }
    return replace(snapshot, cells=cells)


def with_info(snapshot: Snapshot, **changed: Any) -> Snapshot:
    """Returns the snapshot with something of every cell changed."""
    cells = {name: replace(one, info=structs.replace(one.info, **changed)) for name, one in snapshot.cells.items()}
    return replace(snapshot, cells=cells)


def without(run: Snapshot, verifier: str, **head: Any) -> Snapshot:
    """Returns the run as it would be without a verifier."""
    cells = {
        name: replace(
            one,
            stages=tuple(s for s in one.stages if s.verifier != verifier),
            images={
                i: replace(image, answers={v: a for v, a in image.answers.items() if v != verifier})
                for i, image in one.images.items()
            },
        )
        for name, one in run.cells.items()
    }
    return with_head(replace(run, cells=cells), **head)


seconds = st.floats(0, 19.9).map(lambda value: round(value, 6))


@st.composite
def answers(draw: st.DrawFn) -> Answers | None:
    """Draws what the verifiers answered on one image, as a cascade would, without contradictions."""
    if draw(st.booleans()) and draw(st.booleans()):
        return None
    open_ = ["unknown", "timeout", "memout", "error"]
    truth = draw(st.sampled_from(["unsat", "sat"]))
    by_verifier = {"ibp": (draw(st.sampled_from([*open_, truth] if truth == "unsat" else open_)), draw(seconds))}
    by_verifier["pgd"] = (draw(st.sampled_from([*open_, truth] if truth == "sat" else open_)), draw(seconds))
    if all(status in open_ for status, _ in by_verifier.values()):
        by_verifier["bab"] = (draw(st.sampled_from([*open_, truth, truth])), draw(seconds))
    return by_verifier


images = st.lists(answers(), min_size=1, max_size=25)


OTHER_NAME = "cnn-small_ibp_eps2_dense_x1_s0"
NASTY = "<b>|`x`\n::error::boo\x00,:%"


def result() -> GateResult:
    """Returns a red gate: one cell that lost and gained images, one that fared well."""
    base = snapshot(
        cell(PROVED, SEARCHED, SLOW, BROKEN, TIMEOUT, MISCLASSIFIED, *[PROVED] * 94),
        cell(*[PROVED] * 3, TIMEOUT, name=OTHER_NAME),
    )
    run = snapshot(
        cell(BROKEN, TIMEOUT, TIMEOUT, PROVED, PROVED, PROVED, *[PROVED] * 94, onnx=OTHER),
        cell(*[PROVED] * 4, name=OTHER_NAME, onnx=OTHER),
    )
    return compare(base, run, RuleSet())


def crashed() -> GateResult:
    """Returns a gate of a run in which a verifier crashed."""
    base = snapshot(cell(PROVED, SEARCHED))
    return compare(base, snapshot(cell(PROVED, ERROR, onnx=OTHER)), RuleSet())
