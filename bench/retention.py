"""What pruning keeps of a dense control's accuracies, as a Markdown table.

``prunecert retention`` reads the cards of the shipped checkpoints: accuracies on the held-out training images
under PGD and by bounds. ``prunecert retention results`` reads the leaderboard's entries, and a run's folder or its
``summary.json`` is read as well: the images that complete verifiers have judged. With ``--proved`` and a run's folder,
each proof of its dense networks is followed into the pruned ones (docs/pairs.md). ``--figures FOLDER`` draws what was
verified, too. A network is compared with the dense
one of the same network, objective, radius and seed, and only where both were measured on the same images. Checkpoints
are compared only where both were trained for as many epochs, too; among entries those that weren't have a mark.

``--about networks`` prints the board of a run's folder, of its summary or of the leaderboard's entries: [verified,
attacked] and what is kept of the dense network's accuracies, kept weights, multiply-adds, unstable ReLUs, median and
total time.

``--about SUBJECT`` asks of a run's folder, or of the leaderboard's entries, image by image: ``classes`` that lose more
than others, ``images`` whose guarantee the majority of seeds lose or gain, the ``potential`` for pruning of each
accuracy, ``methods`` against the dense control and against LWM with what they cost, ``contrasts`` of groups of methods
at equal weights and at equal multiply-adds, ``trainings``, how far others would move the networks and what that leaves
of differences between methods, ``claims`` of the methods' papers with what the networks say to them. Of
checkpoints it asks for ``gradients``, whether classes with larger ones lose more, and ``rates``, with which layers
begin and end.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunecert.bench.impact.drawing import draw
from prunecert.bench.impact.kept import cells_of_suite, kept_accuracies
from prunecert.bench.impact.questions import OF_CHECKPOINTS, ImpactQuestion, allowance_of, tell
from prunecert.bench.retention_options import check, parser
from prunecert.errors import EXIT_OK, run_main
from prunecert.models.checkpoint_folders import CHECKPOINTS, checkpoint_files, hidden


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    options = parser(__doc__).parse_args(argv)
    check(options)
    if options.about is not None:
        tell(
            ImpactQuestion(
                source=options.source or (CHECKPOINTS if options.about in OF_CHECKPOINTS else Path("results")),
                subject=options.about,
                compressions=None if options.compression is None else frozenset(options.compression),
                cells=options.cells,
                allowance=allowance_of(options.allowance),
                checkpoints=options.checkpoints or CHECKPOINTS,
                data_root=options.data_root,
                against=options.against,
                only=cells_of_suite(options.suite),
            )
        )
        return EXIT_OK
    if options.proved is not None:
        from prunecert.bench.running import retention

        return retention.tell(
            options.proved,
            options.data_root,
            checkpoints=options.checkpoints or CHECKPOINTS,
            compressions=options.compression,
            cells=options.cells,
        )
    only = cells_of_suite(options.suite)
    print(kept_accuracies(options.source, options.compression, options.cells, only), end="")
    if options.figures is not None:
        drawn = draw(
            options.source, options.figures, compressions=options.compression, patterns=options.cells, only=only
        )
        print("".join(f"\nwrote {path}" for path in drawn))
    if options.source is None:
        names = (file.stem for file in checkpoint_files(CHECKPOINTS))
        print("".join(f"\n{line}\n" for line in hidden(CHECKPOINTS, names)), end="")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
