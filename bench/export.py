"""Export a suite's checkpoints: ONNX files with the masks baked in, and a VNN-COMP folder.

Writes onnx/, vnnlib/ and instances.csv under onnx_exports/SUITE, which any tool that takes part in VNN-COMP can run,
and `python -m bench.verify --instances` too. Images that a network gets wrong are left out: there is nothing to prove.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from bench import prepare
from prunecert.errors import EXIT_OK, UserError, run_main


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = _parser().parse_args(argv)
    if options.timeout is not None and not options.timeout > 0:
        raise UserError(f"--timeout {options.timeout:g} is refused; it must be above 0 seconds.")
    from bench.suite import load_suite

    suite = load_suite(options.suite, options.profile)
    cells = prepare.choose(suite, options.cells, None, options.images)
    present, missing = prepare.find_checkpoints(suite, cells, options.checkpoints)
    out = options.out or Path("onnx_exports") / suite.name
    for name, command in missing.items():
        print(f"{name}: no checkpoint yet; train it with: {command}")
    if not present:
        raise UserError(f"None of the {len(cells)} cells has a checkpoint in {options.checkpoints}; nothing to export.")
    from bench.plan import export_cell, is_correct, robustness_instance
    from verifiers.counterexample import outputs
    from verifiers.vnnlib import write

    data = prepare.load_data(present, options.data_root)
    rows: list[tuple[str, str, str]] = []
    written: set[Path] = set()
    for cell, protocol in present:
        export = export_cell(options.checkpoints / f"{cell.name}.safetensors", out / "onnx")
        split = data[protocol.split]
        count = min(protocol.images, len(split))
        # Whatever is installed here, the question and its limit are the suite's.
        limit = options.timeout or max(protocol.timeouts[name] for name in protocol.cascade)
        logits = outputs(export.path, split.images[:count])
        right = [p for p in range(count) if is_correct(logits[p], int(split.labels[p]))]
        for position in right:
            # The box and the label make the property; networks of one radius share it.
            name = f"{split.split}{split.indices[position]}_eps{float(cell.eps * 255):g}.vnnlib"
            target = out / "vnnlib" / name
            if target not in written:
                target.parent.mkdir(parents=True, exist_ok=True)
                write(robustness_instance(export, split, position, cell.eps, limit, name), target)
                written.add(target)
            rows.append((f"onnx/{export.path.name}", f"vnnlib/{name}", f"{limit:g}"))
        print(
            f"{cell.name}: sparsity {export.sparsity:.4f} ({export.compression:.4g}x), {len(right)} of {count} images "
            f"classified correctly, sha256 {export.sha256[:12]}"
        )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    beside = out / "instances.csv.part"
    beside.write_text(text.getvalue(), encoding="utf-8")
    beside.replace(out / "instances.csv")
    print(f"{len(present)} networks, {len(written)} properties, {len(rows)} instances: {out / 'instances.csv'}")
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.export", description=__doc__)
    parser.add_argument("--suite", required=True, help="name of a shipped suite (see bench.ls), or a .yaml file")
    parser.add_argument("--profile", default="default", help="whose number of images and limits (default: default)")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument("--images", type=int, help="the first N images instead of the profile's number")
    parser.add_argument("--timeout", type=float, help="seconds an instance (default: the profile's longest limit)")
    parser.add_argument("--out", type=Path, help="folder to write (default: onnx_exports/SUITE)")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--checkpoints", type=Path, default=prepare.CHECKPOINTS, help="folder of trained cells")
    return parser


if __name__ == "__main__":
    run_main(main)
