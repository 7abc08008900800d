"""ONNX files of cells, masked and compact, made once and again when what they are made of has changed."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import prunecert
from prunecert.bench.schema.cell import Cell
from prunecert.compaction import Compaction, Mode
from prunecert.errors import UserError
from prunecert.files import write_text
from prunecert.hashing import sha256_file
from prunecert.models.checkpoint_folders import locate
from prunecert.models.holdout import is_foreign, saw_held_out

if TYPE_CHECKING:
    from prunecert.models.checkpoint import Card

FloatArray = npt.NDArray[np.float32]


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
    def saw_held_out(self) -> bool:
        """Whether the network was trained on the validation split, too, which says nothing of it then."""
        return saw_held_out(self.card.get("recipe"))

    @property
    def foreign(self) -> bool:
        """Whether somebody else trained the network, or the one that it began with, on images unknown here."""
        return is_foreign(self.card.get("recipe"), self.card.get("measured"))

    @property
    def masked_path(self) -> Path:
        """The file whose weights count: sparsity and compression are the masked network's."""
        return self.masked or self.path

    @property
    def record(self) -> dict[str, Any] | None:
        """What was removed, as plain data for result files."""
        return None if self.compaction is None else self.compaction.summary()

    @functools.cached_property
    def multiply_adds(self) -> int | None:
        """Of an image, with weights of that file that are not zero; None where they can't be counted."""
        # Training imports this module where there is no onnx.
        from prunecert.onnx.count import count_shapes

        try:
            return count_shapes(self.masked_path).sparse_macs
        except UserError:
            return None

    @property
    def masked_sha256(self) -> str:
        """Hash of that file."""
        return self.compaction.masked_sha256 if self.compaction is not None else self.sha256


def export_cell(checkpoint: Path, folder: Path) -> Export:
    """Exports a checkpoint to ONNX, or takes the file that an earlier call left if nothing has changed.

    Args:
        checkpoint: The safetensors file; its card lies beside it.
        folder: Where the ONNX file goes.

    Raises:
        UserError: The checkpoint or its card is missing, truncated, or has another hash than the card says.
    """
    from prunecert.models.checkpoint import load_card

    card = load_card(checkpoint.with_suffix(".json"))
    if not checkpoint.is_file():
        raise UserError(f"Checkpoint {checkpoint} is missing, though its card is there; restore it or train it again.")
    made_from = {"checkpoint_sha256": sha256_file(checkpoint), "prunecert": prunecert.__version__}
    target, record = folder / f"{checkpoint.stem}.onnx", folder / f"{checkpoint.stem}.export.json"
    if made_from["checkpoint_sha256"] == card.sha256 and target.is_file() and record.is_file():
        try:
            fields = json.loads(record.read_text())
            if fields["made_from"] == made_from and fields["sha256"] == sha256_file(target):
                return Export(
                    target,
                    fields["sha256"],
                    fields["sparsity"],
                    fields["compression"],
                    made_from["checkpoint_sha256"],
                    _card_fields(card),
                )
        except (ValueError, KeyError, TypeError):
            pass  # A record that was cut off is as good as none: export again.
    from prunecert.models.export import export_onnx

    folder.mkdir(parents=True, exist_ok=True)
    info = export_onnx(checkpoint, target)
    fields = {
        "schema_version": 1,
        "made_from": made_from,
        "sha256": info.sha256,
        "sparsity": info.sparsity,
        "compression": info.compression,
    }
    write_text(record, json.dumps(fields, indent=2) + "\n")
    return Export(
        target, info.sha256, info.sparsity, info.compression, made_from["checkpoint_sha256"], _card_fields(card)
    )


def _card_fields(card: Card) -> dict[str, Any]:
    """Returns a card as plain data; of a network of factors with the weights in whose place they stand."""
    fields = card.to_json()
    return {**fields, "dense_weights": card.weights} if "factorised" in card.surgery else fields


def rounded_export(export: Export, folder: Path, bits: Sequence[int]) -> Export:
    """Returns an export with its weights rounded to a few bits; see `models.bits`.

    Args:
        export: The network with its masks multiplied in, not compacted.
        folder: Where the ONNX file goes, as ``<name>_b8.onnx``.
        bits: One number for all layers, or one for each; none: the export as it is.

    Raises:
        UserError: The bits don't fit the network, or a layer would be emptied.
    """
    if not bits:
        return export
    from prunecert.models.bits import round_file

    target = folder / f"{export.path.stem}_b{'-'.join(map(str, bits))}.onnx"
    count = round_file(export.path, target, bits)
    weights, nonzero = sum(layer.weights for layer in count.layers), sum(layer.nonzero for layer in count.layers)
    return replace(
        export,
        path=target,
        sha256=sha256_file(target),
        sparsity=1 - nonzero / weights,
        compression=weights / nonzero,
    )


class Calibration:
    """Images by which int8 networks choose the scales of their activations, loaded when the first is made.

    Args:
        load: Returns images of the validation split, [n, C, H, W], of which some are taken.
    """

    def __init__(self, load: Callable[[], FloatArray]) -> None:
        self._load = load

    @functools.cached_property
    def images(self) -> FloatArray:
        """Those that are taken."""
        from prunecert.models.quantise import spread

        return spread(self._load())

    @functools.cached_property
    def fingerprint(self) -> str:
        """Stands for them."""
        return hashlib.sha256(self.images.tobytes()).hexdigest()


def int8_export(export: Export, folder: Path, calibration: Calibration) -> Export:
    """Returns an export as a QDQ file of int8 weights and uint8 activations, or takes the file of an earlier call.

    Args:
        export: The network with its masks multiplied in, not compacted.
        folder: Where the ONNX file goes, as ``<name>_int8.onnx``; beside it, a record.
        calibration: Images for the scales of activations.

    Raises:
        UserError: There are no images, or an operator isn't one that can be quantised exactly.
    """
    import onnxruntime

    stem = f"{export.path.stem}_int8"
    target, record = folder / f"{stem}.onnx", folder / f"{stem}.json"
    made_from = {
        "masked_sha256": export.sha256,
        "calibration": calibration.fingerprint,
        "onnxruntime": onnxruntime.__version__,
        "prunecert": prunecert.__version__,
    }
    try:
        fields = json.loads(record.read_text())
        if fields["made_from"] == made_from and fields["sha256"] == sha256_file(target):
            return _as_int8(export, target, fields["weights"], fields["kept"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # Nothing was left there, or it was cut off: write it again.
    from prunecert.models.quantise import quantise

    info = quantise(export.path, target, calibration.images)
    fields = {
        "schema_version": 1,
        "made_from": made_from,
        "sha256": info.sha256,
        "weights": info.weights,
        "kept": info.kept,
        "agreement": info.agreement,
    }
    write_text(record, json.dumps(fields, indent=2) + "\n")
    return _as_int8(export, target, info.weights, info.kept)


def _as_int8(export: Export, target: Path, weights: int, kept: int) -> Export:
    return replace(
        export,
        path=target,
        sha256=sha256_file(target),
        sparsity=1 - kept / weights,
        compression=weights / max(kept, 1),
    )


def cell_export(
    cell: Cell, checkpoints: Path, folder: Path, mode: Mode, calibration: Calibration | None = None
) -> Export:
    """Exports a cell's checkpoint in the form in which it is verified: weights rounded, dead units removed.

    Of int8 networks nothing is removed, so that they have the layers of their float32 networks.

    Args:
        cell: The cell.
        checkpoints: Where the checkpoints lie.
        folder: Where ONNX files go.
        mode: How much to remove.
        calibration: Images for int8 networks.

    Raises:
        UserError: The checkpoint is missing or damaged, or its weights can't be rounded so.
    """
    export = export_cell(locate(checkpoints, cell.as_trained.name), folder)
    if cell.int8:
        if calibration is None:
            raise UserError(f"{cell.name} is refused here: int8 networks are made where images are at hand.")
        return int8_export(export, folder, calibration)
    return compact_export(rounded_export(export, folder, cell.bits), folder, mode)


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
        fields = json.loads(record.read_text())
        compaction = Compaction.from_json(fields["compaction"])
        # Factors may be multiplied where nothing is removed.
        path = export.path if fields["sha256"] == export.sha256 else target
        if fields["made_from"] == made_from and fields["sha256"] == sha256_file(path):
            return replace(export, path=path, sha256=fields["sha256"], masked=export.path, compaction=compaction)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        pass  # Nothing was left there, or it was cut off: write it again.
    from prunecert.models.compact_export import export_compact

    info = export_compact(export.path, target, mode)
    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "schema_version": 1,
        "made_from": made_from,
        "sha256": info.sha256,
        "max_difference": info.max_difference,
        "compaction": info.record.to_json(),
    }
    write_text(record, json.dumps(fields, indent=2) + "\n")
    return replace(export, path=info.path, sha256=info.sha256, masked=export.path, compaction=info.record)
