"""A suite becomes a list of instances with content-hash ids: which verifier is asked what, on which network."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import prunecert
from bench.cell import Cell, Protocol
from models.data import Dataset
from prunecert.compaction import Compaction, Mode
from prunecert.errors import UserError
from prunecert.hashing import digest, sha256_file
from verifiers import VERIFIERS
from verifiers.base import Availability, FloatArray, Instance, Kind, OutputSpec

CLASSES = 10


@dataclass(frozen=True)
class Stage:
    """One verifier with its settings, as one cell meets it.

    Args:
        verifier: Name.
        kind: What it can answer.
        version: Its version.
        source: Which copy of it.
        settings: All settings, defaults included.
        timeout: Seconds an instance.
        device: Where it runs.
        everyone: Whether it sees images that are decided already.
        batch: Instances handed over together, at most.
        memory_mb: Limit of its worker, or None.
        repeat: Where times are taken: which of several times that the same is asked, from 1; None elsewhere.
        after: Hashes of the networks whose counterexamples it may start from, see `bench.warmstart`.
    """

    verifier: str
    kind: Kind
    version: str
    source: str
    settings: Mapping[str, Any]
    timeout: float
    device: str
    everyone: bool
    batch: int
    memory_mb: int | None
    repeat: int | None = None
    after: tuple[str, ...] = ()

    @functools.cached_property
    def settings_hash(self) -> str:
        """Twelve digits that stand for the settings in result rows."""
        return digest(dict(self.settings))[:12]

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for the session row."""
        return {
            "verifier": self.verifier,
            "kind": str(self.kind),
            "version": self.version,
            "source": self.source,
            "settings": dict(self.settings),
            "settings_hash": self.settings_hash,
            "timeout": self.timeout,
            "device": self.device,
            "everyone": self.everyone,
            "memory_mb": self.memory_mb,
            **({"after": list(self.after)} if self.after else {}),
        }


@dataclass(frozen=True)
class Export:
    """A cell's ONNX file.

    Args:
        path: The file.
        sha256: Its hash.
        sparsity: Zeros over all prunable weights, counted in the masked network's file.
        compression: All prunable weights over those kept, likewise.
        checkpoint_sha256: Hash of the checkpoint that it was made from.
        card: The checkpoint's card.
        masked: The network with its masks multiplied in and nothing removed, if `path` is its compact form.
        compaction: What was removed; None if nothing was to be.
    """

    path: Path
    sha256: str
    sparsity: float
    compression: float
    checkpoint_sha256: str
    card: Mapping[str, Any]
    masked: Path | None = None
    compaction: Compaction | None = None

    @property
    def masked_path(self) -> Path:
        """The file whose weights count: sparsity and compression are the masked network's."""
        return self.masked or self.path

    @property
    def record(self) -> dict[str, Any] | None:
        """What was removed, as plain data for result files."""
        return None if self.compaction is None else self.compaction.summary()

    @property
    def masked_sha256(self) -> str:
        """Hash of that file."""
        return self.compaction.masked_sha256 if self.compaction is not None else self.sha256


@dataclass(frozen=True, eq=False)
class CellPlan:
    """One cell, ready to be verified.

    Args:
        cell: The cell.
        protocol: How it is verified.
        export: Its network.
        stages: The verifiers that it meets, in order.
        unsupported: Why a verifier of the cascade does not take this network, by name.
        data: Its images, at least `images` of them.
        images: How many of them, from the first on.
        variant: How the network is written, where it is not the cell's usual file.
        extra: What else goes into the session row.
    """

    cell: Cell
    protocol: Protocol
    export: Export
    stages: tuple[Stage, ...]
    unsupported: Mapping[str, str]
    data: Dataset
    images: int
    variant: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What rows call it: the cell's name, and the variant where there is one."""
        return f"{self.cell.name}_{self.variant}" if self.variant else self.cell.name

    @functools.cached_property
    def image_key(self) -> str:
        """Stands for the network and the data in image rows: equal keys, equal predictions."""
        return image_key(self.export.sha256, self.data.fingerprint, self.data.split)

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """Stands, by stage, for all that decides an answer but the image; a run is resumed by key and image."""
        return tuple(
            stage_key(self.image_key, self.cell.eps, s.verifier, s.version, s.settings_hash, s.timeout, _taken(s))
            for s in self.stages
        )

    def instance(self, position: int, stage: int) -> Instance:
        """Returns the question about one image.

        Args:
            position: Its place in the image set.
            stage: Which verifier (the time limit is part of the question).
        """
        name = f"{self.name} image {self.data.indices[position]}"
        return robustness_instance(self.export, self.data, position, self.cell.eps, self.stages[stage].timeout, name)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data for the session row."""
        indices = self.data.indices[: self.images]
        return {
            **self.cell.to_json(),
            "name": self.name,
            "onnx_sha256": self.export.sha256,
            "masked_sha256": self.export.masked_sha256,
            "compaction": self.export.record,
            "checkpoint_sha256": self.export.checkpoint_sha256,
            "measured_sparsity": self.export.sparsity,
            "measured_compression": self.export.compression,
            "card": dict(self.export.card),
            "split": self.data.split,
            "images": self.images,
            "indices": None if np.array_equal(indices, np.arange(self.images)) else indices.tolist(),
            "data_fingerprint": self.data.fingerprint,
            "image_key": self.image_key,
            "stages": [{**s.to_json(), "key": key} for s, key in zip(self.stages, self.keys, strict=True)],
            "unsupported": dict(self.unsupported),
            "note": self.protocol.note,
            **self.extra,
        }


def robustness_instance(
    export: Export, data: Dataset, position: int, eps: Fraction, timeout: float, name: str
) -> Instance:
    """Returns the question whether a network keeps an image's class over the box round it.

    Args:
        export: The network.
        data: The image set.
        position: The image's place in it.
        eps: Radius.
        timeout: Seconds for the search.
        name: What a person calls the question.
    """
    lower, upper = box(data.images[position], eps)
    label = int(data.labels[position])
    return Instance(
        onnx=export.path,
        onnx_sha256=export.sha256,
        lower=lower,
        upper=upper,
        spec=_robustness(label),
        timeout=timeout,
        name=name,
        label=label,
        classes=CLASSES,
        eps=float(eps),
    )


def is_correct(logits: FloatArray, label: int) -> bool:
    """Whether the label's logit is above all others: with a tie the image itself is a counterexample."""
    return bool(logits[label] > np.delete(logits, label).max())


@functools.cache
def _robustness(label: int) -> OutputSpec:
    return OutputSpec.robustness(label, CLASSES)


def box(image: FloatArray, eps: Fraction) -> tuple[FloatArray, FloatArray]:
    """The sup-norm ball round an image, clipped to [0, 1].

    The corners are computed in float64 and rounded to float32 once, so that every tool gets the same box.

    Args:
        image: float32, pixels in [0, 1].
        eps: Radius.

    Returns:
        Lower and upper corner, float32, the image's shape.
    """
    exact = image.astype(np.float64)
    lower = np.clip(exact - float(eps), 0.0, 1.0).astype(np.float32)
    upper = np.clip(exact + float(eps), 0.0, 1.0).astype(np.float32)
    return lower, upper


def image_key(onnx_sha256: str, fingerprint: str, split: str) -> str:
    """Returns what stands for a network and its data in image rows."""
    return digest([onnx_sha256, fingerprint, split])[:20]


def _taken(stage: Stage) -> tuple[int | str, ...]:
    """Returns what else decides an answer, or its time, in some runs."""
    return stage.after if stage.repeat is None else (stage.repeat, stage.batch)


def stage_key(
    key: str,
    eps: Fraction,
    verifier: str,
    version: str,
    settings_hash: str,
    timeout: float,
    taken: tuple[int | str, ...] = (),
) -> str:
    """Returns what stands, in verdict rows, for all that decides an answer but the image.

    Args:
        key: What `image_key` returned.
        eps: Radius.
        verifier: Its name.
        version: Its version.
        settings_hash: See `Stage`.
        timeout: Seconds an instance.
        taken: Where times are taken: which repeat, and how many images are handed over together; where attacks start
            from other networks' counterexamples: the hashes of those.
    """
    repeated = [list(taken)] if taken else []
    return digest([key, str(eps), verifier, version, settings_hash, timeout, "linf", *repeated])[:20]


def instance_id(instance: Instance, stage: Stage) -> str:
    """Returns the hash of all that decides the answer: the question, its limit, the verifier and its settings.

    Where times are taken, the repeat and the size of the batch are in it as well; where attacks start from other
    networks' counterexamples, those networks.
    """
    taken = _taken(stage)
    repeated = [list(taken)] if taken else []
    return digest([instance.digest(), stage.verifier, stage.version, dict(stage.settings), *repeated])[:32]


def question_id(instance: Instance) -> str:
    """Returns the hash of the question alone; two answers to it that differ are a contradiction."""
    return instance.question()[:32]


def in_shard(cell: Cell, image: int, shard: tuple[int, int] | None) -> bool:
    """Whether an image of a cell belongs to shard (i, n), i from 1 to n; every image belongs to just one."""
    if shard is None:
        return True
    number, count = shard
    value = int.from_bytes(hashlib.sha256(f"{cell.name}:{image}".encode()).digest()[:8], "big")
    return value % count == number - 1


@dataclass
class Installed:
    """Which verifiers can run here; each is asked once.

    Args:
        device: The device asked for.
        found: Filled as verifiers are asked for.
    """

    device: str
    found: dict[str, Availability] = field(default_factory=dict)

    def of(self, verifier: str) -> Availability:
        """Returns what the adapter says of itself."""
        if verifier not in self.found:
            self.found[verifier] = VERIFIERS.get(verifier).availability()
        return self.found[verifier]

    def missing(self, protocols: Sequence[Protocol]) -> dict[str, str]:
        """Returns, by name, what to do about the verifiers that the protocols ask for and that are not there."""
        names = dict.fromkeys(name for protocol in protocols for name in protocol.cascade)
        return {name: self.of(name).hint for name in names if not self.of(name).installed}

    def device_of(self, verifier: str) -> str:
        """Returns where a verifier runs: on the device asked for if it can, else on the CPU."""
        kind = self.device.partition(":")[0]
        return self.device if any(d.partition(":")[0] == kind for d in self.of(verifier).devices) else "cpu"


def make_stages(protocol: Protocol, installed: Installed) -> tuple[Stage, ...]:
    """Returns the cascade's verifiers that are installed, resolved to versions and settings."""
    stages = []
    for name in protocol.cascade:
        adapter, available = VERIFIERS.get(name), installed.of(name)
        if not available.installed:
            continue
        stages.append(
            Stage(
                verifier=name,
                kind=adapter.kind,
                version=available.version,
                source=available.source,
                settings=adapter.resolve(protocol.settings.get(name)),
                timeout=protocol.timeouts[name],
                device=installed.device_of(name),
                everyone=name in protocol.cross_check,
                batch=max(1, adapter.batch_size),
                memory_mb=protocol.memory_mb,
            )
        )
    return tuple(stages)


def supported_stages(stages: Sequence[Stage], onnx: Path) -> tuple[tuple[Stage, ...], dict[str, str]]:
    """Splits stages into those that take a network, and why the others don't, by name."""
    from verifiers.support import check_supported

    taken, refused = [], {}
    for stage in stages:
        reason = check_supported(VERIFIERS.get(stage.verifier), onnx, "linf", "robustness")
        if reason is None:
            taken.append(stage)
        else:
            refused[stage.verifier] = reason
    return tuple(taken), refused


def export_cell(checkpoint: Path, folder: Path) -> Export:
    """Exports a checkpoint to ONNX, or takes the file that an earlier call left if nothing has changed.

    Args:
        checkpoint: The safetensors file; its card lies beside it.
        folder: Where the ONNX file goes.

    Raises:
        UserError: The checkpoint or its card is missing, truncated, or has another hash than the card says.
    """
    from models.checkpoint import load_card

    card = load_card(checkpoint.with_suffix(".json"))
    if not checkpoint.is_file():
        raise UserError(f"Checkpoint {checkpoint} is missing, though its card is there; restore it or train it again.")
    made_from = {"checkpoint_sha256": sha256_file(checkpoint), "prunecert": prunecert.__version__}
    target, record = folder / f"{checkpoint.stem}.onnx", folder / f"{checkpoint.stem}.export.json"
    if made_from["checkpoint_sha256"] == card.sha256 and target.is_file() and record.is_file():
        try:
            known = json.loads(record.read_text())
            if known["made_from"] == made_from and known["sha256"] == sha256_file(target):
                return Export(
                    target,
                    known["sha256"],
                    known["sparsity"],
                    known["compression"],
                    made_from["checkpoint_sha256"],
                    card.to_json(),
                )
        except (ValueError, KeyError, TypeError):
            pass  # A record that was cut off is as good as none: export again.
    from models.export import export_onnx

    folder.mkdir(parents=True, exist_ok=True)
    info = export_onnx(checkpoint, target)
    known = {
        "schema_version": 1,
        "made_from": made_from,
        "sha256": info.sha256,
        "sparsity": info.sparsity,
        "compression": info.compression,
    }
    record.write_text(json.dumps(known, indent=2) + "\n")
    return Export(target, info.sha256, info.sparsity, info.compression, made_from["checkpoint_sha256"], card.to_json())


def compact_export(export: Export, folder: Path, mode: Mode = Mode.PIXELS) -> Export:
    """Returns an export in its compact form, or takes the file that an earlier call left if nothing has changed.

    Args:
        export: The network with its masks multiplied in.
        folder: Where the compact ONNX file goes, as ``<name>.compact.onnx``; beside it, a record.
        mode: How much to remove; `Mode.OFF` leaves the export as it is.
    """
    if mode is Mode.OFF:
        return export
    stem = f"{export.path.stem}.{'compact' if mode is Mode.PIXELS else f'compact-{mode}'}"
    target, record = folder / f"{stem}.onnx", folder / f"{stem}.json"
    made_from = {"masked_sha256": export.sha256, "mode": str(mode), "prunecert": prunecert.__version__}
    try:
        known = json.loads(record.read_text())
        compaction = Compaction.from_json(known["compaction"])
        path = target if compaction.shrank else export.path
        if known["made_from"] == made_from and known["sha256"] == sha256_file(path):
            return replace(export, path=path, sha256=known["sha256"], masked=export.path, compaction=compaction)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        pass  # Nothing was left there, or it was cut off: write it again.
    from models.compact_export import export_compact

    info = export_compact(export.path, target, mode)
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        "schema_version": 1,
        "made_from": made_from,
        "sha256": info.sha256,
        "max_difference": info.max_difference,
        "compaction": info.record.to_json(),
    }
    record.write_text(json.dumps(known, indent=2) + "\n")
    return replace(export, path=info.path, sha256=info.sha256, masked=export.path, compaction=info.record)
