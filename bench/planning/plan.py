"""A suite becomes a list of instances with content-hash ids: which verifier is asked what, on which network."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.stages import Stage
from prunecert.bench.schema.cell import Cell, Protocol
from prunecert.hashing import digest
from prunecert.models.data import Dataset
from prunecert.verifiers.base import FloatArray, Instance, Norm, OutputSpec, Status


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
    #: Whether it is asked about all images, whatever the network makes of them.
    asks_all: ClassVar[bool] = False

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
            stage_key(
                self.image_key,
                self.cell.eps,
                s.verifier,
                s.version,
                s.settings_hash,
                s.timeout,
                _taken(s),
                norm=self.cell.verification_norm,
            )
            for s in self.stages
        )

    def answers_among(
        self, statuses: Mapping[tuple[str, int], Status], positions: Iterable[int]
    ) -> dict[tuple[int, int], Status]:
        """Returns what is known of images, by stage and position.

        Args:
            statuses: Answers by key and image.
            positions: Places of the images in the cell's image set.
        """
        places = [(p, int(self.data.indices[p])) for p in positions]
        return {
            (s, p): statuses[key, index]
            for s, key in enumerate(self.keys)
            for p, index in places
            if (key, index) in statuses
        }

    def instance(self, position: int, stage: int) -> Instance:
        """Returns the question about one image.

        Args:
            position: Its place in the image set.
            stage: Which verifier (the time limit is part of the question).
        """
        name = f"{self.name} image {self.data.indices[position]}"
        timeout = self.stages[stage].timeout
        return robustness_instance(
            self.export, self.data, position, self.cell.eps, timeout, name, norm=self.cell.verification_norm
        )

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
            "multiply_adds": self.export.multiply_adds,
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
    export: Export, data: Dataset, position: int, eps: Fraction, timeout: float, name: str, *, norm: Norm = "linf"
) -> Instance:
    """Returns the question whether a network keeps an image's class over the box round it, or the l2 ball.

    Args:
        export: The network.
        data: The image set.
        position: The image's place in it.
        eps: Radius.
        timeout: Seconds for the search.
        name: What a person calls the question.
        norm: Of the radius.
    """
    image = data.images[position]
    lower, upper = box(image, eps) if norm == "linf" else box_of_ball(image, eps)
    label = int(data.labels[position])
    return Instance(
        onnx=export.path,
        onnx_sha256=export.sha256,
        lower=lower,
        upper=upper,
        spec=_robustness(label, data.classes),
        timeout=timeout,
        name=name,
        label=label,
        classes=data.classes,
        eps=float(eps),
        norm=norm,
        center=image if norm == "l2" else None,
    )


def property_name(data: Dataset, position: int, eps: Fraction) -> str:
    """Returns what the property about an image is called; networks of one radius share it."""
    return f"{data.split}{data.indices[position]}_eps{float(eps * 255):g}.vnnlib"


def property_text(data: Dataset, position: int, eps: Fraction) -> str:
    """Returns the question about an image as VNN-LIB, letter by letter as `bench.export` writes it.

    Args:
        data: The image set.
        position: The image's place in it.
        eps: Radius.
    """
    from prunecert.verifiers.formats.vnnlib import to_vnnlib

    # The network is no part of a property.
    anyone = Export(Path("network.onnx"), "", 0.0, 1.0, "", {})
    return to_vnnlib(robustness_instance(anyone, data, position, eps, 1.0, property_name(data, position, eps)))


def is_correct(logits: FloatArray, label: int) -> bool:
    """Whether the label's logit is above all others: with a tie the image itself is a counterexample."""
    return bool(logits[label] > np.delete(logits, label).max())


@functools.cache
def _robustness(label: int, classes: int) -> OutputSpec:
    return OutputSpec.robustness(label, classes)


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


def box_of_ball(image: FloatArray, eps: Fraction) -> tuple[FloatArray, FloatArray]:
    """The smallest box of float32 corners, within [0, 1], that holds the l2 ball round an image.

    Args:
        image: float32, pixels in [0, 1].
        eps: Radius.

    Returns:
        Lower and upper corner, float32, the image's shape, rounded outwards.
    """
    lower, upper = box(image, eps)
    outside = np.float32(-np.inf), np.float32(np.inf)
    lower, upper = (np.nextafter(corner, end) for corner, end in zip((lower, upper), outside, strict=True))
    return np.clip(lower, np.float32(0), np.float32(1)), np.clip(upper, np.float32(0), np.float32(1))


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
    variation: tuple[int | str, ...] = (),
    *,
    norm: Norm = "linf",
) -> str:
    """Returns what stands, in verdict rows, for all that decides an answer but the image.

    Args:
        key: What `image_key` returned.
        eps: Radius.
        verifier: Its name.
        version: Its version.
        settings_hash: See `Stage`.
        timeout: Seconds an instance.
        variation: Where times are taken: which repeat, and how many images are handed over together; where attacks
            start from other networks' counterexamples: the hashes of those.
        norm: Of the radius.
    """
    repeated = [list(variation)] if variation else []
    return digest([key, str(eps), verifier, version, settings_hash, timeout, norm, *repeated])[:20]


def instance_id(instance: Instance, stage: Stage) -> str:
    """Returns the hash of all that decides the answer: the question, its limit, the verifier and its settings.

    Where times are taken, the repeat and the size of the batch are in it as well; where attacks start from other
    networks' counterexamples, those networks.
    """
    variation = _taken(stage)
    repeated = [list(variation)] if variation else []
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
