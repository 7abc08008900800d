"""The fields of a leaderboard entry, typed and bounded: what anybody may send is judged by this before it is used."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from prunecert.errors import shortened
from prunecert.jsontext import refuse_depth

#: Entries of the whole test split with ten verifiers have some 4 MB.
MOST_BYTES = 16 << 20
_DEEPEST = 12
_LONGEST_TEXT = 10_000
_LONGEST_NAME = 200
_LONGEST_NUMBER = 40
_MOST_PROBLEMS = 50
#: Fields in which a person may have written several lines.
_PROSE = re.compile(r"(^|\.)notes?$")

#: Beyond this, a number is no longer exact in JSON's usual readers.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
#: Seconds of a whole training: some 30,000 years at most.
Amount = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]
Image = Annotated[int, Meta(ge=0, lt=10_000)]


class _Strict(Struct, forbid_unknown_fields=True):
    """A record without further fields."""


class Method(_Strict):
    """What the authors say of their method."""

    title: str
    url: str
    notes: str


class CellRecord(_Strict):
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


class Training(_Strict):
    """How the network was trained, where it was trained here."""

    command: str
    recipe: dict[str, Any]
    device: str
    train_seconds: Amount
    versions: dict[str, str]
    data_fingerprint: str
    mask_sha256: str


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


class Machine(_Strict):
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
    machine: Machine
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


class ShareRecord(_Strict):
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

    clean: ShareRecord
    verified: ShareRecord
    attacked: ShareRecord
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


class CompactionRecord(_Strict):
    """What compaction removed: see `prunecert.compaction.Compaction.summary`."""

    schema_version: Count
    masked_sha256: str
    domain: list[Annotated[float, Meta(ge=-1e6, le=1e6)]] | None
    exact: bool
    layers: Annotated[list[LayerShape], Meta(max_length=10_000)]
    relus: Annotated[list[Count], Meta(min_length=2, max_length=2)]
    folded: Count
    merged: Count


class Images(_Strict):
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


#: Each field of an entry, decoded by itself, so that a problem of one hides none of another.
FIELDS: Mapping[str, Any] = {
    "schema_version": Positive,
    "kind": str,
    "name": str,
    "digest": str,
    "by": str,
    "method": Method,
    "cell": CellRecord,
    "weights": Weights,
    "files": Files,
    "training": Training | None,
    "data": Data,
    "protocol": ProtocolRecord,
    "result": Result,
    "images": Images,
    "verdicts": dict[str, Any],
    "compaction": CompactionRecord | None,
}
#: Fields that older entries lack.
OPTIONAL = frozenset({"compaction"})
TRAINING = Training.__struct_fields__


class Unreadable:
    """Stands in an entry where the file has a number that is none, or far beyond any use.

    Args:
        why: What is wrong with it.
    """

    def __init__(self, why: str) -> None:
        self.why = why


def _whole(text: str) -> int | Unreadable:
    # Converting thousands of digits takes time, and Python refuses it.
    return int(text) if len(text) <= _LONGEST_NUMBER else Unreadable(f"a number of {len(text):,} characters is refused")


def _real(text: str) -> float | Unreadable:
    if len(text) > _LONGEST_NUMBER:
        return Unreadable(f"a number of {len(text):,} characters is refused")
    return float(text) if math.isfinite(float(text)) else Unreadable(f"{text} is refused; it must be a finite number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        # Readers differ in which of the two they take.
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                found[key] = Unreadable("the field stands there twice")
    return found


def decode(data: bytes) -> Any:
    """Returns what a JSON text holds; numbers that can't be taken are `Unreadable`, so that they can be named.

    Raises:
        ValueError: It is no JSON, no UTF-8, or nested thousands deep.
    """
    text = data.decode("utf-8")
    refuse_depth(text)
    try:
        return json.loads(
            text,
            parse_int=_whole,
            parse_float=_real,
            parse_constant=lambda name: Unreadable(f"{name} is no number in JSON"),
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError("it is nested thousands of levels deep") from None


def misshapen(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (field, what is wrong) for everything that is missing, unknown, of another type or out of bounds."""
    found = 0
    for field, what in _extremes(entry, "", 0):
        found += 1
        if found <= _MOST_PROBLEMS:
            yield field, what
    if found:
        # What can't be read can't be compared either.
        return
    for name, kind in FIELDS.items():
        if name in entry:
            yield from _converted(entry[name], kind, name)
        elif name not in OPTIONAL:
            yield name, "the field is missing"
    for name in entry.keys() - FIELDS.keys():
        yield shortened(name, 60), "there is no such field"
    verdicts = entry.get("verdicts")
    for verifier, columns in verdicts.items() if isinstance(verdicts, dict) else ():
        yield from _converted(columns, Columns, f"verdicts.{verifier}")


def _converted(value: Any, kind: Any, path: str) -> Iterator[tuple[str, str]]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        where = where.rstrip("`")
        missing = re.fullmatch(r"Object missing required field `(.*)`", what)
        unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
        if missing:
            yield f"{path}{where}.{missing[1]}", "the field is missing"
        elif unknown:
            yield shortened(f"{path}{where}.{unknown[1]}", _LONGEST_NAME), "there is no such field"
        else:
            yield f"{path}{where}", _words(what)


def _words(what: str) -> str:
    """Returns the decoder's complaint in our words."""
    got = re.fullmatch(r"Expected `(.*)`, got `(.*)`", what)
    if got:
        return f"{_kind(got[2])} is refused; it must be {_kind(got[1])}"
    return f"out of bounds: {what[:1].lower()}{what[1:]}"


def _kind(names: str) -> str:
    words = {
        "int": "a whole number",
        "float": "a number",
        "str": "text",
        "bool": "true or false",
        "object": "an object",
        "array": "a list",
        "null": "null",
    }
    return " or ".join(words.get(name, name) for name in names.split(" | "))


def _extremes(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yields what no field may hold: unreadable numbers, control characters, half characters, deep nesting."""
    if depth > _DEEPEST:
        yield path, f"it is nested more than {_DEEPEST} levels deep"
    elif isinstance(value, dict):
        for key, item in value.items():
            where = f"{path}.{shortened(key, 60)}" if path else shortened(key, 60)
            if len(key) > _LONGEST_NAME or not key.isprintable():
                yield where, f"the name is refused; allowed are {_LONGEST_NAME} printable characters"
            yield from _extremes(item, where, depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            if isinstance(item, bool | int) and abs(item) <= 2**53:
                continue  # Most of an entry is such.
            yield from _extremes(item, f"{path}[{number}]", depth + 1)
    elif isinstance(value, Unreadable):
        yield path, value.why
    elif isinstance(value, str):
        plain = re.sub(r"[\n\t]", " ", value) if _PROSE.search(path) else value
        if len(value) > _LONGEST_TEXT or not plain.isprintable():
            yield path, f"{shortened(repr(value), 60)} is refused; allowed are {_LONGEST_TEXT:,} printable characters"
    elif isinstance(value, int) and abs(value) > 2**53:
        yield path, f"{value} is refused; whole numbers must be within 2^53, beyond which JSON's readers differ"
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, f"{value} is refused; it must be a finite number"
