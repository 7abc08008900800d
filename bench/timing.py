"""Write the tables and figures of a timing run once more, from what is there: `python -m bench.timing RUN`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.report.conclude import conclude_times
from prunecert.bench.running.progress import Output
from prunecert.errors import EXIT_OK, run_main
from prunecert.page_help import PageHelp


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="prunecert timing", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory of a timing suite, finished or not")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    console = Output()
    for path in conclude_times(options.run, console)[1]:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
