"""Exports a suite's checkpoints as a VNN-COMP folder; shows what compaction removes, and that it changes nothing."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from rich.console import Console

from prunecert.bench.planning import select
from prunecert.bench.planning.holdout import refuse_contaminated
from prunecert.bench.report import shapes
from prunecert.bench.report.listing import show
from prunecert.bench.schema.suite import Suite, load_suite
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError
from prunecert.files import write_text
from prunecert.models.checkpoint_folders import describe_places, hidden
from prunecert.printable import plural

if TYPE_CHECKING:
    from prunecert.bench.planning.exports import Export


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is exported.

    Args:
        suite: Name of a shipped suite, or a .yaml file.
        profile: Its profile, whose number of images and limits count.
        cells: Shell patterns of cell names, comma-separated; None: all cells.
        images: The first so many; None: the profile's number.
        image_seed: Seed of the order in which images are drawn; None: the first ones.
        timeout: Seconds an instance; None: the profile's longest limit.
        out: Folder to write; None: ``onnx_exports/SUITE``.
        compact: What is removed from the networks first, as ``--compact`` takes it; None: what the suite says.
        int8: Whether networks are quantised, and instances are about the quantised ones.
        data_root: Folder that holds ``cifar-10-batches-py``; None: it is looked for.
        checkpoints: Folder of the trained cells.
    """

    suite: str
    profile: str = "default"
    cells: str | None = None
    images: int | None = None
    image_seed: int | None = None
    timeout: float | None = None
    out: Path | None = None
    compact: str | None = None
    int8: bool = False
    data_root: Path | None = None
    checkpoints: Path = select.CHECKPOINTS


@dataclass(frozen=True)
class Present:
    """A suite's cells that have a checkpoint.

    Args:
        suite: The suite.
        cells: Those cells, each with how it is verified.
        out: Folder to write.
    """

    suite: Suite
    cells: select.Cells
    out: Path


def _present(request: ExportRequest, *, timed: bool) -> Present:
    """Returns the cells that can be exported, and says which can't.

    Args:
        request: What is asked for.
        timed: Whether a timing suite's cells are meant as such; else the question is what could be removed of them.

    Raises:
        UserError: The suite can't be read, or no cell has a checkpoint.
    """
    suite = load_suite(request.suite, request.profile)
    cells = select.choose(suite, request.cells, None, request.images)
    if not timed:
        cells = tuple((cell, replace(protocol, timing=None)) for cell, protocol in cells)
    cells = select.set_compact(cells, request.compact)
    present, missing = select.find_checkpoints(suite, cells, request.checkpoints)
    for absent in missing:
        print(f"{absent.name}: no checkpoint yet; train it with: {absent.command}")
    if not present:
        where = describe_places(request.checkpoints)
        raise UserError(f"None of the {len(cells)} cells has a checkpoint in {where}; nothing to export.")
    for line in hidden(request.checkpoints, (cell.as_trained.name for cell, _ in present)):
        print(line)
    return Present(suite, present, request.out or Path("onnx_exports") / suite.name)


def export_suite(request: ExportRequest) -> None:
    """Writes networks, properties and instances, and says what each network is.

    Raises:
        UserError: The suite or the data can't be read, no cell has a checkpoint, or one is verified over l2 balls.
    """
    from prunecert.bench.planning.plan import is_correct, property_name, property_text
    from prunecert.bench.results.vnncomp import Key, write_keys
    from prunecert.verifiers.formats.counterexample import outputs

    chosen = _present(request, timed=True)
    present, out = chosen.cells, chosen.out
    balls = [cell.name for cell, _ in present if cell.ball]
    if balls:
        raise UserError(
            f"{balls[0]} is refused: it is verified over l2 balls, which VNN-LIB 1.0 can't state; name other cells "
            "with --cells, or ask for the networks alone with --check or --shapes."
        )
    data = select.load_data(chosen.suite.data, present, request.data_root, request.image_seed)
    rows: list[tuple[str, str, str]] = []
    keys: list[Key] = []
    written: set[Path] = set()
    exports = _exports(chosen, request, out / "onnx")
    networks = zip(present, exports.items(), strict=True)
    refuse_contaminated(((name, protocol.split, export) for (_, protocol), (name, export) in networks), print)
    calibration = _calibration_images(chosen.suite, request) if request.int8 else None
    for (cell, protocol), export in zip(present, exports.values(), strict=True):
        if not protocol.cascade:
            print(f"{cell.name}: sha256 {export.sha256[:12]}; it is certified by smoothing: no property to be verified")
            continue
        split = data[protocol.split]
        count = min(protocol.images, len(split))
        # Whatever is installed here, the question and its limit are the suite's.
        limit = request.timeout or max(protocol.timeouts[name] for name in protocol.cascade)
        path = export.path if calibration is None or cell.int8 else _quantised(cell.name, export.path, calibration)
        logits = outputs(path, split.images[:count])
        right = [p for p in range(count) if is_correct(logits[p], int(split.labels[p]))]
        for position in right:
            # The box and the label make the property; networks of one radius share it.
            name = property_name(split, position, cell.eps)
            target = out / "vnnlib" / name
            if target not in written:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_text(target, property_text(split, position, cell.eps))
                written.add(target)
            rows.append((f"onnx/{path.name}", f"vnnlib/{name}", f"{limit:g}"))
            keys.append(Key(cell.name, int(split.indices[position])))
        print(
            f"{cell.name}: sparsity {export.sparsity:.4f} ({export.compression:.4g}x), {len(right)} of {count} images "
            f"classified correctly, sha256 {export.sha256[:12]}"
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    table = out / "instances.csv"
    if table.is_file() and (earlier := table.read_text(encoding="utf-8")) != text.getvalue():
        print(f"{table} is written anew; it had {plural(len(earlier.splitlines()), 'instance')}")
    write_text(table, text.getvalue())
    write_keys(out, keys)
    shrunk = shapes.rows((c.name, c.compression, e.record) for (c, _), e in zip(present, exports.values(), strict=True))
    if shrunk:
        print("\nremoved before verification (--shapes: layer by layer; --no-compact: the masked networks):")
        show([tuple(heading for heading, _ in shapes.COLUMNS), *map(tuple, shrunk)], Console())
    if any(export.path != export.masked_path for export in exports.values()):
        print(
            "instances.csv names the networks to hand on: NAME.compact.onnx where units were removed. NAME.onnx has "
            "them all, with their masks, and answers alike for pixels in [0, 1]."
        )
    summary = f"{plural(len(present), 'network')}, {plural(len(written), 'property')}"
    print(f"{summary}, {plural(len(rows), 'instance')}: {out / 'instances.csv'}")


def _calibration_images(suite: Suite, request: ExportRequest) -> npt.NDArray[np.float32]:
    """Returns images of the validation split."""
    from prunecert.models.datasets.source import load_split
    from prunecert.models.quantise import spread

    return spread(load_split(suite.data, "val", request.data_root).images)


def _quantised(name: str, path: Path, images: npt.NDArray[np.float32]) -> Path:
    """Writes a network's QDQ file beside it and says what became of it."""
    from prunecert.models.quantise import quantise

    info = quantise(path, path.with_name(f"{path.stem}.int8.onnx"), images)
    print(f"{name}: {info.describe()}")
    return info.path


def _exports(chosen: Present, request: ExportRequest, folder: Path) -> dict[str, Export]:
    """Exports the cells, in the form in which they are to be verified, by name."""
    from prunecert.bench.planning.exports import Calibration
    from prunecert.models.datasets.source import load_split

    calibration = Calibration(lambda: load_split(chosen.suite.data, "val", request.data_root).images)
    return {
        cell.name: select.export_of(chosen.suite, cell, protocol, request.checkpoints, folder, calibration)
        for cell, protocol in chosen.cells
    }


def show_shapes(request: ExportRequest) -> None:
    """Prints the shape of every layer's weights before and after compaction.

    Raises:
        UserError: The suite can't be read, or no cell has a checkpoint.
    """
    chosen = _present(request, timed=False)
    console = Console()
    for name, export in _exports(chosen, request, chosen.out / "onnx").items():
        record = export.record
        print(f"{name}: {'not compacted' if export.compaction is None else export.compaction.describe()}")
        if record is not None and export.compaction is not None and export.compaction.shrank:
            show([("layer", "operator", "masked", "compact", "kept %"), *map(tuple, shapes.layers(record))], console)


def compare_outputs(request: ExportRequest, count: int) -> int:
    """Runs masked and compact networks on the same inputs and prints how far their outputs are apart.

    Args:
        request: Which networks.
        count: How many inputs: images, then random ones.

    Returns:
        0, or 1 if a predicted class differs.

    Raises:
        UserError: The suite or the data can't be read, no cell has a checkpoint, or one is verified over l2 balls.
    """
    from prunecert.models.compact_export import check_inputs
    from prunecert.verifiers.formats.counterexample import outputs

    chosen = _present(request, timed=False)
    data = select.load_data(chosen.suite.data, chosen.cells, request.data_root)
    exports = _exports(chosen, request, chosen.out / "onnx")
    changed = 0
    for (cell, protocol), export in zip(chosen.cells, exports.values(), strict=True):
        if export.path == export.masked_path:
            print(f"{cell.name}: nothing was removed")
            continue
        images = data[protocol.split].images[:count]
        drawn = check_inputs(export.path, count - len(images)) if len(images) < count else images[:0]
        inputs = np.concatenate([images, drawn])
        masked, small = outputs(export.masked_path, inputs), outputs(export.path, inputs)
        gap, size = float(np.abs(masked - small).max()), float(np.abs(masked).max())
        other = int(np.count_nonzero(masked.argmax(axis=1) != small.argmax(axis=1)))
        changed += other
        print(
            f"{cell.name}: {len(images):,} images and {len(drawn):,} random inputs: outputs of up to {size:.4g} differ "
            f"by at most {gap:.3g}, {other} predictions differ"
        )
    return EXIT_REGRESSION if changed else EXIT_OK
