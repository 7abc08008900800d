"""The fields of a leaderboard entry, typed and bounded: what anybody may send is judged by this before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct, field

#: Beyond this, a number is no longer exact in JSON's usual readers.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
#: Seconds of a whole training: some 30,000 years at most.
Amount = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]
Image = Annotated[int, Meta(ge=0, lt=10_000)]


class _Strict(Struct, forbid_unknown_fields=True):
    """A record without further fields."""


class EntryMethod(_Strict):
    """What the authors say of their method."""

    title: str
    url: str
    notes: str
    authors: str = ""


class EntryCell(_Strict):
    """Which network: see `bench.schema.cell.Cell`."""

    network: str
    objective: str
    eps: str
    pruner: str
    compression: Annotated[float, Meta(ge=1, le=1e9)]
    seed: Count
    name: str
    norm: str


class LayerRecord(_Strict):
    """A layer's weights; `zeros` of them are zero."""

    name: str
    kind: str
    shape: Annotated[list[Positive], Meta(min_length=1, max_length=8)]
    weights: Positive
    zeros: Count


class Weights(_Strict):
    """Prunable weights, counted in the file."""

    total: Positive
    nonzero: Positive
    dense: Positive
    sparsity: Share
    compression: Annotated[float, Meta(ge=1, le=2**53)]
    layers: Annotated[list[LayerRecord], Meta(min_length=1, max_length=10_000)]


class Files(_Strict):
    """Hashes of the network's files."""

    onnx_sha256: str
    onnx_bytes: Positive
    checkpoint_sha256: str | None
    masked_sha256: str | None = None


class EntryTraining(_Strict):
    """How the network was trained, where it was trained here; `notes` are what the pruner says of how it went."""

    command: str
    recipe: dict[str, Any]
    device: str
    train_seconds: Amount
    versions: dict[str, str]
    data_fingerprint: str
    mask_sha256: str
    notes: dict[str, Any] = field(default_factory=dict)


class Data(_Strict):
    """Which images."""

    split: str
    fingerprint: str
    official: bool
    sample: bool
    source: str
    images: Annotated[int, Meta(ge=1, le=10_000)]
    indices: list[Image] | None
    images_sha256: str


class EntryMachine(_Strict):
    """What it ran on."""

    cpu: str
    cores: Count
    memory_gib: Amount
    system: str
    architecture: str


class Asked(_Strict):
    """What the suite asks for: see `bench.schema.cell.Protocol`."""

    split: str
    images: Annotated[int, Meta(ge=1, le=50_000)]
    cascade: list[str]
    cross_check: list[str]
    timeouts: dict[str, Annotated[float, Meta(gt=0, le=86_400)]]
    settings: dict[str, dict[str, Any]] = {}
    memory_mb: Count | None = None
    note: str = ""
    compact: str = ""
    timing: dict[str, Any] | None = None
    certify: dict[str, Any] | None = None
    pair: dict[str, Any] | None = None


class StageRecord(_Strict):
    """A verifier as it was asked: see `bench.planning.stages.Stage`."""

    verifier: str
    kind: str
    version: str
    source: str
    settings: dict[str, Any]
    settings_hash: str
    timeout: Annotated[float, Meta(gt=0, le=86_400)]
    device: str
    everyone: bool
    key: str
    memory_mb: Count | None = None
    after: list[str] = []


class ProtocolRecord(_Strict):
    """How the network was verified."""

    suite: str
    profile: str
    suite_digest: str
    command: Annotated[list[str], Meta(max_length=1_000)]
    started: str
    versions: dict[str, str]
    machine: EntryMachine
    device: str
    workers: Count
    threads: Count
    float32: str
    asked: Asked
    image_key: str
    stages: Annotated[list[StageRecord], Meta(max_length=100)]
    unsupported: dict[str, str]
    skipped: dict[str, str]
    note: str


class EntryShare(_Strict):
    """k of n, with an interval."""

    k: Count
    n: Count
    value: Share
    low: Share
    high: Share


class TimeRecord(_Strict):
    """Seconds an image."""

    median_s: Amount | None
    p90_s: Amount | None
    total_s: Amount
    images: Count


class Result(_Strict):
    """What follows from images and verdicts."""

    clean: EntryShare
    verified: EntryShare
    attacked: EntryShare
    undecided: dict[str, Count]
    decided_by: dict[str, dict[str, Count]]
    time: TimeRecord
    finished: bool


class LayerShape(_Strict):
    """A layer before and after compaction."""

    name: str
    operator: str
    before: list[Count]
    after: list[Count]


class EntryCompaction(_Strict):
    """What compaction removed: see `prunecert.compaction.Compaction.summary`."""

    schema_version: Count
    masked_sha256: str
    domain: list[Annotated[float, Meta(ge=-1e6, le=1e6)]] | None
    exact: bool
    layers: Annotated[list[LayerShape], Meta(max_length=10_000)]
    relus: Annotated[list[Count], Meta(min_length=2, max_length=2)]
    folded: Count
    merged: Count


class EntryImages(_Strict):
    """One item an image."""

    index: list[Image]
    label: list[Count]
    predicted: list[Count]
    correct: list[bool]


class Columns(_Strict):
    """A verifier's answers, one item an image that it was asked."""

    image: list[Image]
    status: list[str]
    seconds: list[Annotated[float, Meta(ge=-1e6, le=1e6)]]
    unstable: list[Count | None]
    domains: list[Count | None]
    decided_in: list[str | None]


class Proofs(_Strict):
    """Certificates of answers, one item each; the files lie in the folder ``certificates/<name>`` beside the entry."""

    image: list[Image]
    status: list[str]
    sha256: list[str]
    size: list[Count]


#: Each field of an entry, decoded by itself, so that a problem of one hides none of another.
FIELDS: Mapping[str, Any] = {
    "schema_version": Positive,
    "kind": str,
    "name": str,
    "digest": str,
    "by": str,
    "method": EntryMethod,
    "cell": EntryCell,
    "weights": Weights,
    "files": Files,
    "training": EntryTraining | None,
    "data": Data,
    "protocol": ProtocolRecord,
    "result": Result,
    "images": EntryImages,
    "verdicts": dict[str, Any],
    "compaction": EntryCompaction | None,
    "proofs": Proofs,
}
#: Fields that older entries lack, or those without certificates.
OPTIONAL = frozenset({"compaction", "proofs"})
#: What every card of a training says; its `notes` may be missing.
TRAINING = tuple(name for name in EntryTraining.__struct_fields__ if name != "notes")
