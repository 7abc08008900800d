"""Join the parts of a run (`bench.run --shard I/N --out DIR`) into one run directory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.report.conclude import conclude
from prunecert.bench.results.merge import merge
from prunecert.bench.running.progress import Output
from prunecert.errors import run_main
from prunecert.page_help import PageHelp


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring. Exit codes as `bench.run`."""
    parser = argparse.ArgumentParser(prog="prunecert merge", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("parts", nargs="+", type=Path, metavar="RUN", help="run directories of the parts")
    parser.add_argument("--out", type=Path, required=True, help="run directory to make")
    options = parser.parse_args(argv)
    merge(options.parts, options.out)
    return conclude(options.out, Output()).exit_code


if __name__ == "__main__":
    run_main(main)
