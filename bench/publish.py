"""Make the leaderboard site from the entries in a results folder: static files, no server, no outside requests."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.leaderboard.publishable import publishable
from prunecert.errors import EXIT_OK, run_main
from prunecert.page_help import PageHelp
from prunecert.printable import say


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(prog="prunecert publish", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="the results folder")
    parser.add_argument("--out", type=Path, default=Path("site"), help="folder of the site (default: site); replaced")
    parser.add_argument("--skip-invalid", action="store_true", help="leave out entries that prunecert check refuses")
    parser.add_argument(
        "--onnx", type=Path, metavar="FOLDER", help="offer the entries' ONNX files, found there by their hashes"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Returns:
        0.

    Raises:
        UserError: There is nothing valid to publish, or the target is not ours to replace.
    """
    from prunecert.bench.site.build import Content, check_target, find_onnx, publish
    from prunecert.bench.site.downloads import has_pyarrow

    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    began = time.monotonic()
    check_target(options.out)
    board = publishable(options.results, skip_invalid=options.skip_invalid)
    onnx = find_onnx(options.onnx, board.entries)
    for remark in board.remarks:
        say(remark)
    parquet = has_pyarrow()
    if not parquet:
        print("no Parquet download: pyarrow is not installed; pip install 'prunecert[publish]' brings it.")
    publish(Content(board.entries, board.larger, onnx, parquet, board.proofs), options.out)
    print(f"{len(board.entries)} entries in {time.monotonic() - began:.1f} s; open {options.out / 'index.html'}")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
