"""Export a suite's checkpoints: ONNX files with the masks baked in, and a VNN-COMP folder.

Writes onnx/, vnnlib/ and instances.csv under onnx_exports/SUITE, which any tool that takes part in VNN-COMP can run,
and `prunecert verify --instances` too. Images that a network gets wrong are left out: there is nothing to prove.

By default instances.csv names the compact networks (NAME.compact.onnx): without the units that pruning has left without
effect for pixels in [0, 1]; the masked ones (NAME.onnx) lie beside them, and --no-compact names those. `--shapes` only
shows what is removed, layer by layer; it needs no data.

--int8 writes the quantised networks, too (NAME.int8.onnx: int8 weights, uint8 activations, QDQ; docs/quantised.md),
and instances.csv then names those, with the images that they classify correctly. Scales come from held-out training
images.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from prunecert.bench.options import IMAGES, SECONDS, SEED, add_compact_option
from prunecert.bench.planning import select
from prunecert.bench.running.exporting import ExportRequest, compare_outputs, export_suite, show_shapes
from prunecert.errors import EXIT_OK, run_main
from prunecert.page_help import PageHelp


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    request = ExportRequest(**{field.name: getattr(options, field.name) for field in fields(ExportRequest)})
    if options.shapes:
        show_shapes(request)
    elif options.check is not None:
        return compare_outputs(request, options.check)
    else:
        export_suite(request)
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prunecert export", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("--suite", required=True, help="name of a shipped suite (see prunecert ls), or a .yaml file")
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
    parser.add_argument("--int8", action="store_true", help="quantise the networks, and name those in instances.csv")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        default=select.CHECKPOINTS,
        help="folder of trained cells (default: ./checkpoints, then those that ship; in a checkout the zoo)",
    )
    return parser


if __name__ == "__main__":
    run_main(main)
