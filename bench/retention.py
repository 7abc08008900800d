"""What pruning keeps of a dense control's accuracies, as a Markdown table.

``prunecert retention`` reads the cards of the shipped checkpoints: accuracies on the held-out training images
under PGD and by bounds. ``prunecert retention results/zoo/cifar10-4nets-1000.json`` reads a run's summary: the
images that complete verifiers have judged. With ``--proved`` and a run's folder, each proof of its dense networks is
followed into the pruned ones (docs/pairs.md). A network is compared with the dense one of the same network, objective,
radius and seed, and only where both were trained for as many epochs and measured on the same images.

``--about SUBJECT`` asks of a run's folder, or of the leaderboard's entries, image by image: ``classes`` that lose more
than others, ``images`` whose guarantee the majority of seeds lose or gain, the ``potential`` for pruning of each
accuracy, ``methods`` against the dense control and against LWM with what they cost. ``--about gradients`` asks of
checkpoints whether classes with larger gradients lose more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.impact.questions import DEFAULT_ALLOWANCE, SUBJECTS, ImpactQuestion, allowance_of, tell
from prunecert.bench.report.kept_accuracies import kept_accuracies
from prunecert.errors import EXIT_OK, UserError, run_main
from prunecert.models.checkpoint_folders import CHECKPOINTS, checkpoint_files, hidden
from prunecert.numbers import read_number


def _ratios(text: str) -> set[float]:
    ratios = [read_number(part) for part in text.split(",")]
    if None in ratios:
        raise UserError(f"Compression {text!r} is refused; write ratios, e.g. 1,10,100.")
    return {ratio for ratio in ratios if ratio is not None}


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(prog="prunecert retention", description=__doc__)
    parser.add_argument(
        "source", type=Path, nargs="?", help="a folder of checkpoints (default: all), or a summary.json"
    )
    parser.add_argument("--compression", type=_ratios, help="only these, e.g. 1,10,100 (default: all)")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    about = parser.add_argument_group("image by image")
    about.add_argument("--about", choices=SUBJECTS, help="what the tables are about")
    about.add_argument("--allowance", type=float, default=DEFAULT_ALLOWANCE, help="points that may be lost (0.5)")
    about.add_argument("--checkpoints", type=Path, help="folder of the networks' cards (default: as for source)")
    about.add_argument("--data-root", type=Path, help="folder of the data, for gradients and --proved")
    parser.add_argument("--proved", type=Path, metavar="RUN", help="follow each proof of a run's dense networks")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    options = parser().parse_args(argv)
    if options.about is not None:
        tell(
            ImpactQuestion(
                source=options.source or (CHECKPOINTS if options.about == "gradients" else Path("results")),
                subject=options.about,
                compressions=None if options.compression is None else frozenset(options.compression),
                cells=options.cells,
                allowance=allowance_of(options.allowance),
                checkpoints=options.checkpoints or CHECKPOINTS,
                data_root=options.data_root,
            )
        )
        return EXIT_OK
    if options.proved is not None:
        from prunecert.bench.running import retention

        return retention.tell(options.proved, options.data_root)
    print(kept_accuracies(options.source, options.compression, options.cells), end="")
    if options.source is None:
        names = (file.stem for file in checkpoint_files(CHECKPOINTS))
        print("".join(f"\n{line}\n" for line in hidden(CHECKPOINTS, names)), end="")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
