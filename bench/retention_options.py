"""The options of ``prunecert retention``."""

from __future__ import annotations

import argparse
from pathlib import Path

from prunecert.bench.impact.questions import DEFAULT_ALLOWANCE, SUBJECTS
from prunecert.errors import UserError
from prunecert.numbers import read_number
from prunecert.page_help import PageHelp


def _ratios(text: str) -> set[float]:
    ratios = [read_number(part) for part in text.split(",")]
    if None in ratios:
        raise UserError(f"Compression {text!r} is refused; write ratios, e.g. 1,10,100.")
    return {ratio for ratio in ratios if ratio is not None}


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns the argument parser of ``retention``."""
    parser = argparse.ArgumentParser(prog="prunecert retention", description=description, formatter_class=PageHelp)
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        help="a folder of checkpoints (default: all), a run's folder or its summary.json, or the leaderboard's entries "
        "(results); with --about of all but networks no summary (rates and gradients: checkpoints)",
    )
    parser.add_argument("--compression", type=_ratios, help="only these, e.g. 1,10,100 (default: all)")
    parser.add_argument("--suite", help="only cells of this suite: a shipped one's name, or a YAML file")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        help="also draw the networks that were verified, as a run's report does: what is kept, verified accuracy "
        "against compression, time against sparsity (PNG and SVG)",
    )
    about = parser.add_argument_group("image by image")
    about.add_argument(
        "--about", choices=SUBJECTS, metavar="TOPIC", help=f"what the tables are about: {', '.join(SUBJECTS)}"
    )
    about.add_argument("--allowance", type=float, default=DEFAULT_ALLOWANCE, help="points that may be lost (0.5)")
    about.add_argument(
        "--against",
        metavar="PRUNER",
        help="what methods (default: lwm), or groups of them (default: each other), are held against",
    )
    about.add_argument(
        "--checkpoints", type=Path, help="folder of the networks, for --proved, too (default: as for source)"
    )
    about.add_argument("--data-root", type=Path, help="folder of the data, for gradients and --proved")
    parser.add_argument("--proved", type=Path, metavar="RUN", help="follow each proof of a run's dense networks")
    return parser


def check(options: argparse.Namespace) -> None:
    """Refuses options that don't go together.

    Raises:
        UserError: They don't; the message says which.
    """
    others = {
        "--about": options.about,
        "--suite": options.suite,
        "--figures": options.figures,
        str(options.source): options.source,
    }
    if options.proved is not None and (other := next((name for name, value in others.items() if value), "")):
        raise UserError(f"--proved goes without {other}; name the run's folder after --proved alone, or leave it out.")
    if options.figures is not None and (options.source is None or options.about is not None):
        raise UserError(
            "--figures goes with a run, its summary.json or the leaderboard's entries (results), and without --about: "
            "it draws networks that verifiers have judged."
        )
