"""Take a network that CTRAIN trained into the checkpoints, as a dense parent to be verified and pruned.

The file is checked by its SHA-256 (published beside it), by the shape of every layer and by logits; the network is
measured on held-out training images, as trained ones are. A suite prunes it by naming it as `parent` in a recipe.

With ``--ap-key``, the file is a pruned network of the Adversarial Pruning benchmark: it is checked likewise, its zeros
are counted against the key's rate, and it is written as ONNX with a card, for ``bench.run --suite cifar10-ap --card``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from prunecert.bench.planning import select
from prunecert.bench.schema.cell import Cell, parse_eps, show_eps
from prunecert.errors import EXIT_OK, UserError, run_main
from prunecert.files import write_text
from prunecert.models import DENSE

#: How far a compression may be from its key's: layers that a method leaves whole.
_RATE = 0.1


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    if options.ap_key is not None:
        return _adopt_ap(options.ap_key, options.file, options.sha256, options.out, force=options.force)
    for name in ("network", "objective"):
        if getattr(options, name) is None:
            raise UserError(f"--{name} is needed for a network of CTRAIN; or give --ap-key for one of the benchmark.")
    from prunecert.models import OBJECTIVES
    from prunecert.models.ctrain import load_ctrain

    if options.images is not None and options.images < 1:
        raise UserError(f"--images {options.images} is refused; it must be at least 1.")
    OBJECTIVES.check(options.objective)
    cell = Cell(options.network, options.objective, parse_eps(options.eps), DENSE, 1.0, options.seed)
    file = options.out / f"{cell.name}.json"
    if file.exists() and not options.force:
        raise UserError(f"{file} is there already; allowed are --force, which replaces it, another --seed or --out.")
    model = load_ctrain(options.file, options.network, options.sha256)

    import torch

    import prunecert
    from prunecert.models.checkpoint import save
    from prunecert.models.data import load
    from prunecert.models.evaluate import evaluate
    from prunecert.models.masks import Masks
    from prunecert.models.pipeline import MEASURED

    val = load("val", options.data_root, allow_sample=False)
    accuracy = evaluate(model, val, float(cell.eps), limit=options.images)
    card = save(
        options.out,
        model,
        Masks.dense(model),
        name=cell.name,
        network=cell.network,
        objective=cell.objective,
        eps=show_eps(cell.eps),
        pruner=DENSE,
        compression=1.0,
        seed=cell.seed,
        recipe={"imported": options.sha256.lower()},
        accuracy=accuracy,
        measured=MEASURED if options.images is None else f"first {options.images:,} images of the {MEASURED}",
        data_fingerprint=val.fingerprint,
        versions={"prunecert": prunecert.__version__, "torch": torch.__version__},
        device="cpu",
        train_seconds=0.0,
        command=f"python -m bench.adopt --file {options.file.name} --sha256 {options.sha256.lower()} "
        f"--network {cell.network} --objective {cell.objective} --eps {show_eps(cell.eps)} --seed {cell.seed}",
    )
    parts = [f"{name} {value:.1%}" for name, value in card.accuracy.items() if name != "images"]
    print(f"{card.name}: {card.weights:,} weights; validation: {', '.join(parts)}")
    print(f"To prune it, write `parent: {card.name}` into the recipe of {cell.network}/{cell.objective}.")
    return EXIT_OK


def _adopt_ap(key_text: str, file: Path, sha256: str, out: Path, *, force: bool) -> int:
    """Writes a network of the Adversarial Pruning benchmark as ONNX, with its card."""
    from prunecert.models.ap import load_ap, parse_key
    from prunecert.models.export import export_model

    key = parse_key(key_text)
    onnx, card = out / f"{key_text.lower()}.onnx", out / f"{key_text.lower()}.yaml"
    if card.exists() and not force:
        raise UserError(f"{card} is there already; allowed are --force, which replaces it, or another --out.")
    model, masks = load_ap(file, key.network, sha256)
    if not key.structured and abs(masks.compression / key.compression - 1) > _RATE:
        raise UserError(
            f"{file} is refused: {masks.sparsity:.1%} of its weights are zero, and its key says {key.rate} %; give the "
            "key of this file, or a file with its masks multiplied in."
        )
    info = export_model(model, masks, {"ap_key": key_text, "sparsity": f"{masks.sparsity:.9f}"}, onnx)
    fields = {
        "schema_version": 1,
        "name": key_text.lower(),
        "onnx": onnx.name,
        "network": key.network,
        "objective": "adversarial",
        "pruner": key.pruner,
        "eps": "8/255",
        "title": key_text,
        "url": "https://arxiv.org/abs/2409.01249",
        "notes": f"Checkpoint of SHA-256 {sha256.lower()}, read by order and shape.",
    }
    write_text(card, yaml.safe_dump(fields, sort_keys=False))
    print(f"{key_text}: {masks.kept:,} of {masks.total:,} weights ({info.compression:.1f}x)")
    print(f"Attack it: python -m bench.run --suite cifar10-ap --card {card}")
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prunecert adopt", description=__doc__)
    parser.add_argument("--file", type=Path, required=True, help="what CTRAIN or the method wrote: a state dictionary")
    parser.add_argument("--sha256", required=True, help="the file's SHA-256, as it is published")
    parser.add_argument("--network", help="cnn5-standardised or cnn7-standardised")
    parser.add_argument("--objective", help="what it was trained with, e.g. mtl-ibp; for its name")
    parser.add_argument("--ap-key", help="key of the Adversarial Pruning benchmark; the network follows from it")
    parser.add_argument("--eps", default="2/255", help="radius it was trained for (default: 2/255)")
    parser.add_argument("--seed", type=int, default=0, help="number that tells it from others (default: 0)")
    parser.add_argument("--images", type=int, help="measure on the first so many held-out images (default: all 5,000)")
    parser.add_argument("--out", type=Path, default=select.CHECKPOINTS, help="folder of checkpoints (default: the zoo)")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--force", action="store_true", help="replace a checkpoint of that name")
    return parser


if __name__ == "__main__":
    run_main(main)
