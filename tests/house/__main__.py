"""Shows the house, and writes the files that say what its rules don't hold for yet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tests.house import ROOT, arrows, words
from tests.house.floors import floors
from tests.house.ratchets import RATCHETS


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what is asked for; returns 1 if there are more exceptions than the files say."""
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument(
        "--arrows", nargs="*", metavar="CHECKOUT", type=Path, help="floors, arrows and circles of rooms"
    )
    parser.add_argument("--words", nargs="*", metavar="FILE", type=Path, help="where names say nothing of their values")
    parser.add_argument("--write", action="store_true", help="write the files, which may only shrink")
    parser.add_argument("--more", action="store_true", help="with --write: let them grow")
    options = parser.parse_args(arguments)
    for checkout in (options.arrows or [ROOT]) if options.arrows is not None else ():
        lines = [str(folder) for folder in floors(arrows(checkout))]
        print("\n".join([f"{checkout}:", *lines]))
    if options.words is not None:
        files = [file for path in options.words for file in (path.rglob("*.py") if path.is_dir() else [path])]
        print("\n".join(words.places([file.resolve() for file in files] or words.sources(), ROOT.resolve())))
    if options.write:
        print("\n".join(ratchet.write(more=options.more) for ratchet in RATCHETS))
    if options.arrows is not None or options.words is not None:
        return 0
    problems = [problem for ratchet in RATCHETS for problem in ratchet.problems()]
    print("\n".join(problems or ["All rules hold, but for what stands in tests/*.txt."]))
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
