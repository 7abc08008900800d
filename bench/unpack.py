"""Take cells that were trained with a pack, on another machine, into the checkpoints.

Each archive is checked first: its cell is one of the pack's, trained by the same recipe, on the same data, from the
same parent; the network's file has its card's hash and fits. What is there already is left alone, so that the same
archives may be given again and again, while more of them come.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prunecert.bench.planning import select
from prunecert.bench.running.unpacking import UnpackRequest, take_archives
from prunecert.errors import EXIT_OK, run_main
from prunecert.page_help import PageHelp


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="prunecert unpack", description=__doc__, formatter_class=PageHelp)
    parser.add_argument(
        "archives", nargs="+", type=Path, metavar="ARCHIVE", help="what was fetched: .tar files, folders"
    )
    parser.add_argument("--pack", type=Path, required=True, metavar="DIR", help="the pack, or its pack.json")
    parser.add_argument(
        "--out",
        type=Path,
        default=select.CHECKPOINTS,
        metavar="DIR",
        help="folder of checkpoints (default: ./checkpoints; in a checkout the zoo)",
    )
    parser.add_argument("--force", action="store_true", help="replace other checkpoints of the same names")
    options = parser.parse_args(argv)
    request = UnpackRequest(pack=options.pack, archives=options.archives, out=options.out, force=options.force)
    take_archives(request, lambda line: print(line, flush=True))
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
