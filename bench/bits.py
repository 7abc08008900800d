"""Choose the bits of each layer's weights, at the size that the same bits for all would have.

    python -m bench.bits --checkpoint cnn-small_ibp_eps2_lwm_x10_s0 --bits 4

Images are held-out training images: the first --images for the search, the next --check to compare its choice with
equal bits. The bits that are printed go into a suite as they are, e.g. bits: [4, 8/8/4/6]. See docs/bits.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.options import IMAGES, SECONDS, THREADS, whole
from prunecert.bench.planning.exports import export_cell
from prunecert.bench.planning.select import CHECKPOINTS
from prunecert.bench.report.medium import Table
from prunecert.bench.running.bit_search import VerifiedJudge, check_verifier, search_bits, start_of
from prunecert.bench.schema.cell import parse_eps, show_bits
from prunecert.errors import EXIT_OK, UserError, run_main
from prunecert.models import LEAST_BITS, MOST_BITS
from prunecert.models.datasets.source import CIFAR10, load_split, source_of
from prunecert.printable import say
from prunecert.verifiers.process.worker import Worker


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    command = argparse.ArgumentParser(
        prog="prunecert bits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = command.add_argument
    add("--checkpoint", required=True, metavar="NAME", help="a trained cell: its name, or the path of its file")
    add("--bits", required=True, type=whole("bits", LEAST_BITS, MOST_BITS), help="the size is that of so many for all")
    add("--images", type=IMAGES, default=100, help="held-out images of the search (default: 100)")
    add("--check", type=IMAGES, default=100, help="further ones, to compare the choice on (default: 100)")
    add("--verifier", default="sparse-crown-ibp", help="who proves (default: %(default)s)")
    add("--timeout", type=SECONDS, default=10.0, help="seconds an image (default: 10)")
    add("--checkpoints", type=Path, default=CHECKPOINTS, help="folder of trained cells")
    add("--exports", type=Path, help="folder for ONNX files (default: none are left)")
    add("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    add("--threads", type=THREADS, metavar="N", help="threads of the verifier")
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    options = parser().parse_args(argv)
    check_verifier(options.verifier)
    path = Path(options.checkpoint)
    if path.suffix != ".safetensors":
        path = options.checkpoints / f"{options.checkpoint}.safetensors"
    with tempfile.TemporaryDirectory(prefix="prunecert-bits-") as scratch:
        folder = options.exports or Path(scratch)
        export = export_cell(path, folder)
        data = load_split(source_of(export.card.get("data", {}).get("name", CIFAR10)), "val", options.data_root)
        if len(data) < options.images + options.check:
            raise UserError(
                f"--images {options.images} and --check {options.check} are refused: there are {len(data):,} held-out "
                "images; allowed is that many together."
            )
        eps = parse_eps(str(export.card["eps"]))
        start, kept = start_of(export, options.bits)
        with Worker(options.verifier, threads=options.threads, log=None) as worker:

            def judge(first: int, count: int) -> VerifiedJudge:
                positions = range(first, first + count)
                return VerifiedJudge(export, folder, data, positions, eps, worker, options.timeout)

            path_taken = search_bits(start, judge(0, options.images), kept, say)
            mixed = path_taken[-1].bits
            check = judge(options.images, options.check)
            rows = []
            for bits in dict.fromkeys(((), start, mixed)):
                score, count = check(bits)
                rows.append([show_bits(bits), f"{count.kilobytes:.3g}", str(score.proved), f"{score.margin:.4f}"])
    columns = (("bits", False), ("kB", True), (f"proved of {options.check}", True), ("mean margin", True))
    print("\n".join(["", *Table(columns, rows).markdown(), ""]))
    better = mixed != start
    say(f"bits: {show_bits(mixed)}" if better else f"No exchange is an improvement over {options.bits} bits for all.")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
