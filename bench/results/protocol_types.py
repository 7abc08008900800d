"""What ran, on what, and with which settings: records that sessions, summaries and baselines share."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

from prunecert.bench.results.quantities import (
    Amount,
    Count,
    Limit,
    Name,
    Positive,
    Ratio,
    Seed,
    Share,
)
from prunecert.verifiers.base import Kind

#: Of lists that are pairs.
TWO = Meta(min_length=2, max_length=2)


#: Settings of a verifier, a recipe, a card: plain data whose keys somebody else knows.
Document = dict[str, Any]


class DataRecord(Struct, kw_only=True, omit_defaults=True):
    """A split of the data set.

    Args:
        split: Its name.
        fingerprint: Hash of its pixels and labels.
        official: Whether its files have the published checksums.
        sample: Whether it is the built-in sample.
        source: In words.
    """

    split: Name
    fingerprint: Name
    official: bool
    sample: bool
    source: Name


class Machine(Struct, kw_only=True, omit_defaults=True):
    """What a timing depends on.

    Args:
        system: Operating system and its release.
        architecture: Of the processor.
        cpu: Its model.
        cores: Processors that the run could use.
        memory_gib: GiB of memory.
    """

    system: Name
    architecture: Name
    cpu: Name
    cores: Positive
    memory_gib: Amount


class Missing(Struct, kw_only=True, omit_defaults=True):
    """A cell without a checkpoint, with the command that trains it.

    Args:
        name: Of the cell.
        command: What trains it.
        family: How it is called with all cells of its network, objective and radius; rows of older versions lack it.
        member: How it is called among them; rows of older versions lack it.
    """

    name: Name
    command: str
    family: str = ""
    member: str = ""


class LayerSizes(Struct, kw_only=True, omit_defaults=True):
    """Shape of a layer's weights before and after compaction."""

    name: Name
    operator: Name
    before: list[Positive]
    after: list[Count]


class CompactionRecord(Struct, kw_only=True, omit_defaults=True):
    """What compaction took from a network; see `prunecert.compaction`.

    Args:
        schema_version: 1.
        masked_sha256: Hash of the network before.
        domain: Lowest and highest input for which both compute the same, or null: any.
        exact: Whether only what changes no rounding was removed.
        layers: Layer by layer.
        relus: ReLUs before and after.
        folded: Units folded into biases.
        merged: Units merged into others.
    """

    schema_version: Positive
    masked_sha256: Name
    domain: Annotated[list[Amount], TWO] | None
    exact: bool
    layers: list[LayerSizes]
    relus: Annotated[list[Count], TWO]
    folded: Count
    merged: Count


class StageSettings(Struct, kw_only=True, omit_defaults=True):
    """A verifier as a cell meets it.

    Args:
        verifier: Its name.
        kind: What it can answer.
        version: Its version.
        source: Which copy of it.
        settings: All settings, defaults included.
        timeout: Seconds an instance.
        device: Where it runs.
        everyone: Whether it sees images that are decided already.
        memory_mb: Limit of its worker in MiB, or null.
    """

    verifier: Name
    kind: Kind
    version: Name
    source: Name
    settings: Document
    timeout: Limit
    device: Name
    everyone: bool
    memory_mb: Positive | None


class SessionStage(StageSettings, kw_only=True, omit_defaults=True):
    """A verifier of a session's cell.

    Args:
        settings_hash: Twelve digits that stand for the settings.
        key: Network, data, radius, verifier, version, settings, limit: what a verdict row is found by.
        after: Hashes of the networks whose counterexamples an attack may start from (``--warm-start``).
    """

    settings_hash: Name
    key: Name
    after: list[Name] = field(default_factory=list)


class SmoothingSettings(Struct, kw_only=True, omit_defaults=True):
    """Settings of randomized smoothing; see `verifiers.adapters.smoothing`."""

    sigma: Ratio
    n0: Positive
    n: Positive
    alpha: Share
    batch: Positive
    seed: Seed


class Sizes(Struct, kw_only=True, omit_defaults=True):
    """What a network costs to evaluate; see `prunecert.onnx.count`."""

    neurons: Count
    weights: Count
    nonzero: Count
    macs: Count
    sparse_macs: Count


class BitSizes(Struct, kw_only=True, omit_defaults=True):
    """What a network's numbers take, in suites with rounded weights; see `models.bits`.

    Args:
        bits: Of a weight, by layer in the order of the graph; 32 where they aren't rounded.
        kept: Weights that aren't zero, likewise.
        scales: Of output channels, 32 bits each.
        others: Biases and what else isn't rounded, 32 bits each.
        kilobytes: All together, in 1,000 bytes, without the places of the zeros.
        compression: Bits of all weights in float32 over those of the weights that are left.
    """

    bits: list[Positive]
    kept: list[Count]
    scales: Count
    others: Count
    kilobytes: Amount
    compression: Ratio
