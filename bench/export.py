"""Export a suite's checkpoints: ONNX files with the masks baked in, and a VNN-COMP folder.

Writes onnx/, vnnlib/ and instances.csv under onnx_exports/SUITE, which any tool that takes part in VNN-COMP can run,
and `python -m bench.verify --instances` too. Images that a network gets wrong are left out: there is nothing to prove.

By default instances.csv names the compact networks (NAME.compact.onnx): without the units that pruning has left without
effect for pixels in [0, 1]; the masked ones (NAME.onnx) lie beside them, and --no-compact names those. `--shapes` only
shows what is removed, layer by layer; it needs no data.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from prunecert.bench.ls import show
from prunecert.bench.options import IMAGES, SECONDS, SEED, add_compact_option
from prunecert.bench.planning import select
from prunecert.bench.report import shapes
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError, run_main
from prunecert.files import write_text

if TYPE_CHECKING:
    from prunecert.bench.planning.exports import Export
    from prunecert.bench.schema.suite import Suite


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    from prunecert.bench.schema.suite import load_suite

    suite = load_suite(options.suite, options.profile)
    cells = select.choose(suite, options.cells, None, options.images)
    if options.shapes or options.check is not None:
        # Whatever the suite is for, the question is what could be removed.
        cells = tuple((cell, replace(protocol, timing=None)) for cell, protocol in cells)
    cells = select.set_compact(cells, options.compact)
    present, missing = select.find_checkpoints(suite, cells, options.checkpoints)
    out = options.out or Path("onnx_exports") / suite.name
    for absent in missing:
        print(f"{absent.name}: no checkpoint yet; train it with: {absent.command}")
    if not present:
        raise UserError(f"None of the {len(cells)} cells has a checkpoint in {options.checkpoints}; nothing to export.")
    if options.shapes:
        show_shapes(_exports(present, options.checkpoints, out / "onnx"))
        return EXIT_OK
    if options.check is not None:
        return compare(suite, present, options, out / "onnx")
    from prunecert.bench.planning.plan import is_correct, property_name, property_text
    from prunecert.bench.results.vnncomp import Key, write_keys
    from prunecert.verifiers.formats.counterexample import outputs

    data = select.load_data(suite.data, present, options.data_root, options.image_seed)
    rows: list[tuple[str, str, str]] = []
    keys: list[Key] = []
    written: set[Path] = set()
    exports = _exports(present, options.checkpoints, out / "onnx")
    for (cell, protocol), export in zip(present, exports.values(), strict=True):
        if not protocol.cascade:
            print(f"{cell.name}: sha256 {export.sha256[:12]}; it is certified by smoothing: no property to be verified")
            continue
        split = data[protocol.split]
        count = min(protocol.images, len(split))
        # Whatever is installed here, the question and its limit are the suite's.
        limit = options.timeout or max(protocol.timeouts[name] for name in protocol.cascade)
        logits = outputs(export.path, split.images[:count])
        right = [p for p in range(count) if is_correct(logits[p], int(split.labels[p]))]
        for position in right:
            # The box and the label make the property; networks of one radius share it.
            name = property_name(split, position, cell.eps)
            target = out / "vnnlib" / name
            if target not in written:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_text(target, property_text(split, position, cell.eps))
                written.add(target)
            rows.append((f"onnx/{export.path.name}", f"vnnlib/{name}", f"{limit:g}"))
            keys.append(Key(cell.name, int(split.indices[position])))
        print(
            f"{cell.name}: sparsity {export.sparsity:.4f} ({export.compression:.4g}x), {len(right)} of {count} images "
            f"classified correctly, sha256 {export.sha256[:12]}"
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(out / "instances.csv", text.getvalue())
    write_keys(out, keys)
    shrunk = shapes.rows((c.name, c.compression, e.record) for (c, _), e in zip(present, exports.values(), strict=True))
    if shrunk:
        print("\nremoved before verification (--shapes: layer by layer; --no-compact: the masked networks):")
        show([tuple(heading for heading, _ in shapes.COLUMNS), *map(tuple, shrunk)], Console())
    print(f"{len(present)} networks, {len(written)} properties, {len(rows)} instances: {out / 'instances.csv'}")
    return EXIT_OK


def _exports(present: select.Cells, checkpoints: Path, folder: Path) -> dict[str, Export]:
    """Exports the cells, in the form in which they are to be verified, by name."""
    from prunecert.bench.planning.exports import cell_export

    return {
        cell.name: cell_export(cell, checkpoints, folder, select.compact_mode(protocol)) for cell, protocol in present
    }


def show_shapes(exports: Mapping[str, Export]) -> None:
    """Prints the shape of every layer's weights before and after compaction.

    Args:
        exports: By cell name.
    """
    console = Console()
    for name, export in exports.items():
        record = export.record
        print(f"{name}: {'not compacted' if export.compaction is None else export.compaction.describe()}")
        if record is not None and export.compaction is not None and export.compaction.shrank:
            show([("layer", "operator", "masked", "compact", "kept %"), *map(tuple, shapes.layers(record))], console)


def compare(suite: Suite, present: select.Cells, options: argparse.Namespace, folder: Path) -> int:
    """Runs masked and compact networks on the same inputs and prints how far their outputs are apart.

    Returns:
        0, or 1 if a predicted class differs.
    """
    from prunecert.models.compact_export import check_inputs
    from prunecert.verifiers.formats.counterexample import outputs

    data = select.load_data(suite.data, present, options.data_root)
    changed = 0
    for (cell, protocol), export in zip(present, _exports(present, options.checkpoints, folder).values(), strict=True):
        if export.path == export.masked_path:
            print(f"{cell.name}: nothing was removed")
            continue
        images = data[protocol.split].images[: options.check]
        drawn = check_inputs(export.path, options.check - len(images)) if len(images) < options.check else images[:0]
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prunecert export", description=__doc__)
    parser.add_argument("--suite", required=True, help="name of a shipped suite (see bench.ls), or a .yaml file")
    parser.add_argument("--profile", default="default", help="whose number of images and limits (default: default)")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument("--images", type=IMAGES, help="the first N images instead of the profile's number")
    parser.add_argument("--image-seed", type=SEED, help="draw the images with this seed instead of taking the first")
    parser.add_argument("--timeout", type=SECONDS, help="seconds an instance (default: the profile's longest limit)")
    parser.add_argument("--out", type=Path, help="folder to write (default: onnx_exports/SUITE)")
    add_compact_option(parser)
    parser.add_argument("--shapes", action="store_true", help="only show what is removed, layer by layer")
    parser.add_argument(
        "--check",
        type=IMAGES,
        metavar="N",
        help="only compare compact with masked networks on N images (then random inputs)",
    )
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--checkpoints", type=Path, default=select.CHECKPOINTS, help="folder of trained cells")
    return parser


if __name__ == "__main__":
    run_main(main)
