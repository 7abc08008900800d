"""The normal form in a process of its own: python -m prunecert.onnx normalise SRC DST."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from prunecert.errors import EXIT_OK, EXIT_USAGE, UserError, run_main
from prunecert.files import write_bytes
from prunecert.onnx.io import load_model
from prunecert.onnx.normalise import UnsupportedNetworkError, normalise
from prunecert.page_help import PageHelp


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes DST, unless SRC is normal already, and prints one line of JSON that says what was made."""
    parser = argparse.ArgumentParser(prog="python -m prunecert.onnx", description=__doc__, formatter_class=PageHelp)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser(
        "normalise", help="rewrite a network into the form that all readers take", formatter_class=PageHelp
    )
    verb.add_argument("source", type=Path, help="the network")
    verb.add_argument("target", type=Path, help="the file to write")
    verb.add_argument("--output", help="name of the output that counts")
    verb.add_argument("--outputs", type=int, help="how many values the output that counts has")
    verb.add_argument(
        "--keep", nargs="*", default=[], choices=["MaxPool", "Sigmoid", "Tanh"], help="operators that may stay"
    )
    options = parser.parse_args(arguments)
    try:
        line, code = write(options.source, options.target, options.output, options.outputs, options.keep), EXIT_OK
    except UserError as error:
        kind = "unsupported" if isinstance(error, UnsupportedNetworkError) else "refused"
        line, code = json.dumps({"error": str(error), "kind": kind}), EXIT_USAGE
    print(line)
    return code


def write(source: Path, target: Path, output: str | None, outputs: int | None, keep: Sequence[str]) -> str:
    """Normalises a file; see `main`."""
    normal = normalise(load_model(source), output=output, outputs=outputs, keep=keep, name=str(source))
    if normal.changed:
        write_bytes(target, normal.model.SerializeToString(deterministic=True))
    return json.dumps(
        {
            "changed": normal.changed,
            "input_order": None if normal.input_order is None else normal.input_order.tolist(),
            "outputs": normal.outputs,
            "last": normal.last,
            "notes": list(normal.notes),
            "output": normal.output,
            "removed": normal.removed,
        }
    )


if __name__ == "__main__":
    run_main(main)
