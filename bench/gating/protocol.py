"""Whether two runs asked the same questions under the same limits; each difference that forbids a comparison, named."""

from __future__ import annotations

from prunecert.bench.gating.records import CellRecord, Snapshot
from prunecert.bench.results.protocol_types import StageSettings

_ABSENT = "the default"
#: What of a cell must be equal, and what people call it.
_CELL = {"eps": "radius", "split": "split", "data_fingerprint": "data fingerprint"}
_STAGE = {"timeout": "time limit", "memory_mb": "memory limit", "everyone": "cross-check"}
_VERSION = {"version": "version", "source": "source"}


def differences(base: CellRecord, run: CellRecord, skipped: frozenset[str], any_version: bool) -> list[str]:
    """Returns what makes a cell's two records incomparable, one phrase each; empty if nothing does.

    The network may differ: it is what the gate looks at. A verifier that refuses the run's network is compared,
    too: what it no longer proves is lost.

    Args:
        base: The baseline's.
        run: The run's.
        skipped: Verifiers that were not installed when the run was made.
        any_version: Whether verifiers may have other versions.
    """
    sentences = [
        f"{word}: {_short(getattr(base.info, key))} in the baseline, {_short(getattr(run.info, key))} in the run"
        for key, word in _CELL.items()
        if getattr(base.info, key) != getattr(run.info, key)
    ]
    sentences += _images(base, run)
    expected = [name for name in base.verifiers if name not in skipped and name not in run.info.unsupported]
    actual = [name for name in run.verifiers if name not in base.info.unsupported]
    if expected != actual:
        sentences.append(f"verifiers: {_words(expected)} in the baseline, {_words(actual)} in the run")
        return sentences
    theirs = {stage.verifier: stage for stage in run.stages}
    for stage in base.stages:
        if stage.verifier in theirs:
            sentences += _stage(stage, theirs[stage.verifier], any_version)
    return sentences


def _images(base: CellRecord, run: CellRecord) -> list[str]:
    ours, theirs = list(base.images), list(run.images)
    if ours != theirs:
        if len(ours) != len(theirs):
            return [f"image set: {len(ours)} images in the baseline, {len(theirs)} in the run"]
        place = next(i for i, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
        return [f"image set: number {place + 1} is image {ours[place]} in the baseline, {theirs[place]} in the run"]
    for image in ours:
        a, b = base.images[image], run.images[image]
        if a.label != b.label:
            return [f"label of image {image}: {a.label} in the baseline, {b.label} in the run"]
        same = base.info.onnx_sha256 == run.info.onnx_sha256
        if same and a.question is not None and b.question is not None and a.question != b.question:
            return [f"question about image {image}: the boxes or properties have other digests"]
    return []


def _stage(base: StageSettings, run: StageSettings, any_version: bool) -> list[str]:
    name, sentences = base.verifier, []
    for key, word in {**_STAGE, **({} if any_version else _VERSION)}.items():
        a, b = getattr(base, key), getattr(run, key)
        if a != b:
            sentences.append(f"{word} of {name}: {_short(a)} in the baseline, {_short(b)} in the run")
    ours, theirs = base.settings, run.settings
    for key in sorted({*ours, *theirs}):
        a, b = ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
        if a != b:
            sentences.append(f"setting {key} of {name}: {_short(a)} in the baseline, {_short(b)} in the run")
    return sentences


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def _words(names: list[str]) -> str:
    return ", ".join(names) or "none"


def other_machine(base: Snapshot, run: Snapshot) -> str | None:
    """Returns why times can't be compared, or None if both were taken on the same kind of machine, alike in use."""
    for snapshot, word in ((base, "baseline"), (run, "run")):
        if len(snapshot.head.machines) != 1:
            return f"the {word} was made on {len(snapshot.head.machines)} machines"
    ours, theirs = base.head.machines[0], run.head.machines[0]
    for key in ("cpu", "cores", "architecture"):
        a, b = getattr(ours, key), getattr(theirs, key)
        if a != b:
            return f"another machine ({key}: {a} in the baseline, {b} in the run)"
    for key in ("devices", "workers", "threads"):
        a, b = getattr(base.head, key), getattr(run.head, key)
        if a != b:
            return f"other {key} ({_show(a)} in the baseline, {_show(b)} in the run)"
    return None


def _show(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def version_notes(base: Snapshot, run: Snapshot) -> list[str]:
    """Returns which packages have other versions, one phrase each."""
    ours, theirs = base.head.versions, run.head.versions
    return [
        f"{name} {ours.get(name, 'missing')} in the baseline, {theirs.get(name, 'missing')} in the run"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
