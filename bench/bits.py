"""Choose the bits of each layer's weights, at the size that the same bits for all would have.

    prunecert bits --checkpoint cnn-small_ibp_eps2_lwm_x10_s0 --bits 4

Images are held-out training images: the first --images for the search, the next --check to compare its choice with
equal bits. The bits that are printed go into a suite as they are, e.g. bits: [4, 8/8/4/6]. See docs/bits.md.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.options import IMAGES, SECONDS, THREADS, whole
from prunecert.bench.report.medium import Table
from prunecert.bench.running.bit_search import BitRequest, choose_bits
from prunecert.bench.schema.cell import show_bits
from prunecert.errors import EXIT_OK, run_main
from prunecert.models import LEAST_BITS, MOST_BITS
from prunecert.models.checkpoint_folders import CHECKPOINTS, hidden, locate
from prunecert.page_help import PageHelp
from prunecert.printable import say


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    command = argparse.ArgumentParser(prog="prunecert bits", description=__doc__, formatter_class=PageHelp)
    add = command.add_argument
    add("--checkpoint", required=True, metavar="NAME", help="a trained cell: its name, or the path of its file")
    add(
        "--bits",
        required=True,
        type=whole("bits", LEAST_BITS, MOST_BITS),
        metavar="N",
        help="of every layer's weights to begin with; no choice is larger than that",
    )
    add("--images", type=IMAGES, default=100, help="held-out images of the search (default: 100)")
    add("--check", type=IMAGES, default=100, help="further ones, to compare the choice on (default: 100)")
    add("--verifier", default="sparse-crown-ibp", help="who proves (default: %(default)s)")
    add("--timeout", type=SECONDS, default=10.0, help="seconds an image (default: 10)")
    add(
        "--checkpoints",
        type=Path,
        default=CHECKPOINTS,
        help="folder of trained cells (default: ./checkpoints, then those that ship; in a checkout the zoo)",
    )
    add("--exports", type=Path, help="folder for ONNX files (default: none are left)")
    add("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    add("--threads", type=THREADS, metavar="N", help="threads of the verifier")
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    options = parser().parse_args(argv)
    path = Path(options.checkpoint)
    if path.suffix != ".safetensors":
        path = locate(options.checkpoints, options.checkpoint)
        for line in hidden(options.checkpoints, [options.checkpoint]):
            say(line)
    names = ("bits", "images", "check", "verifier", "timeout", "data_root", "threads")
    with tempfile.TemporaryDirectory(prefix="prunecert-bits-") as scratch:
        fields = {name: getattr(options, name) for name in names}
        choice = choose_bits(BitRequest(checkpoint=path, exports=options.exports or Path(scratch), **fields), say)
    columns = (("bits", False), ("kB", True), (f"proved of {options.check}", True), ("mean margin", True))
    rows = [
        [show_bits(one.bits), f"{one.count.kilobytes:.3g}", str(one.score.proved), f"{one.score.margin:.4f}"]
        for one in choice.compared
    ]
    print("\n".join(["", *Table(columns, rows).markdown(), ""]))
    better = choice.bits != choice.start
    say(f"bits: {show_bits(choice.bits)}" if better else f"No exchange is an improvement over {options.bits} for all.")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
