"""Take a network that CTRAIN trained into the checkpoints, as a dense parent to be verified and pruned.

The file is checked by its SHA-256 (published beside it), by the shape of every layer and by logits; the network is
measured on the images that are held out here, as trained ones are, with a word on its card that whoever trained it may
have had them. A suite prunes it by naming it as `parent` in a recipe.

With ``--ap-key``, the file is a pruned network of the Adversarial Pruning benchmark: it is checked likewise, its zeros
are counted against the key's rate, and it is written as ONNX with a card, for ``prunecert run --card``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prunecert.bench.options import SEED
from prunecert.bench.planning import select
from prunecert.bench.running.adopting import ForeignNetwork, adopt_ap, adopt_ctrain
from prunecert.errors import EXIT_OK, UserError, run_main
from prunecert.page_help import PageHelp


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    foreign = ForeignNetwork(file=options.file, sha256=options.sha256, out=options.out, force=options.force)
    if options.ap_key is not None:
        adopt_ap(foreign, options.ap_key)
        return EXIT_OK
    for name in ("network", "objective"):
        if getattr(options, name) is None:
            raise UserError(f"--{name} is needed for a network of CTRAIN; or give --ap-key for one of the benchmark.")
    adopt_ctrain(
        foreign,
        options.network,
        options.objective,
        options.eps,
        options.seed,
        images=options.images,
        data_root=options.data_root,
    )
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prunecert adopt", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("--file", type=Path, required=True, help="what CTRAIN or the method wrote: a state dictionary")
    parser.add_argument("--sha256", required=True, help="the file's SHA-256, as it is published")
    parser.add_argument("--network", help="cnn5-standardised or cnn7-standardised")
    parser.add_argument("--objective", help="what it was trained with, e.g. mtl-ibp; for its name")
    parser.add_argument("--ap-key", help="key of the Adversarial Pruning benchmark; the network follows from it")
    parser.add_argument("--eps", default="2/255", help="radius it was trained for (default: 2/255)")
    parser.add_argument("--seed", type=SEED, default=0, help="number that tells it from others (default: 0)")
    parser.add_argument("--images", type=int, help="measure on the first so many held-out images (default: all 5,000)")
    parser.add_argument(
        "--out",
        type=Path,
        default=select.CHECKPOINTS,
        help="folder of checkpoints (default: ./checkpoints; in a checkout the zoo)",
    )
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--force", action="store_true", help="replace a checkpoint of that name")
    return parser


if __name__ == "__main__":
    run_main(main)
