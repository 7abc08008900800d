"""The command `prunecert`: one verb for each thing that can be done; `prunecert VERB --help` says how.

prunecert run --suite cifar10-4nets
prunecert verify --onnx net.onnx --vnnlib property.vnnlib --verifier sparse-bab
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import prunecert
from prunecert.errors import EXIT_OK, EXIT_USAGE, did_you_mean, run_main
from prunecert.registry import PLUGINS


class Verb(NamedTuple):
    """One verb.

    Args:
        target: ``module:function``; imported when the verb is called.
        summary: What it does, in a few words.
        first: Arguments that stand before the user's.
    """

    target: str
    summary: str
    first: tuple[str, ...] = ()


#: In groups, as the help shows them.
GROUPS: Mapping[str, Mapping[str, Verb]] = {
    "Verify": {
        "add": Verb("prunecert.bench.add:main", "verify a network of your own, and say what pruning has kept"),
        "run": Verb("prunecert.bench.run:command", "verify a suite's networks, store verdicts, write the report"),
        "verify": Verb("prunecert.bench.verify:main", "one ONNX file and VNN-LIB property, or a list of instances"),
        "certificate": Verb("prunecert.bench.certificate:main", "proofs of a property that anybody can check"),
        "vnncomp": Verb("prunecert.bench.vnncomp:main", "one instance, answered as the competition asks"),
        "verifiers": Verb("prunecert.verifiers.__main__:main", "which verifiers are installed, on which devices"),
    },
    "Train": {
        "train": Verb("prunecert.bench.train:main", "pre-train, prune, fine-tune and save a suite's networks"),
        "pack": Verb("prunecert.bench.pack:main", "a training for a rented machine, as one folder"),
        "unpack": Verb("prunecert.bench.unpack:main", "take cells that were trained with a pack"),
        "search": Verb("prunecert.bench.search:main", "choose a training recipe on held-out images"),
        "bits": Verb("prunecert.bench.bits:main", "choose the bits of each layer's weights at a given size"),
        "export": Verb("prunecert.bench.export:main", "checkpoints to ONNX and VNN-LIB files"),
        "adopt": Verb("prunecert.bench.adopt:main", "take a network that CTRAIN trained into the checkpoints"),
    },
    "Compare": {
        "gate": Verb("prunecert.bench.gate:command", "fail where verified accuracy fell below a baseline"),
        "baseline": Verb("prunecert.bench.baseline:main", "make or update the baseline that the gate holds runs to"),
        "retention": Verb("prunecert.bench.retention:main", "what pruning keeps of a dense network's accuracies"),
        "compare": Verb("prunecert.bench.compare:main", "the harness beside a shell loop over a verifier's command"),
        "timing": Verb("prunecert.bench.timing:main", "tables and figures of a timing run, once more"),
        "sparse-benchmark": Verb("prunecert.bench.sparse_benchmark:main", "the sparse engine's verifier beside others"),
    },
    "Publish": {
        "publish": Verb("prunecert.bench.publish:main", "the leaderboard as a static site"),
        "check": Verb("prunecert.bench.check:main", "validate leaderboard entries offline"),
        "merge": Verb("prunecert.bench.merge:main", "join the parts of a run"),
        "ls": Verb("prunecert.bench.ls:main", "list suites, networks, pruners, verifiers, settings, runs"),
        "normalise": Verb(
            "prunecert.onnx.__main__:main", "write an ONNX file in the form that all verifiers read", ("normalise",)
        ),
    },
}
VERBS: Mapping[str, Verb] = {name: verb for group in GROUPS.values() for name, verb in group.items()}


def usage() -> str:
    """Returns the help."""
    lines = [
        "usage: prunecert [--plugin MODULE] VERB [options]",
        "       prunecert VERB --help | --version | --help",
        "",
        "--plugin imports a module first, which registers pruners, verifiers, …",
        "",
    ]
    for group, verbs in GROUPS.items():
        lines += [f"{group}:", *(f"  {name:<17} {verb.summary}" for name, verb in verbs.items()), ""]
    lines += ["From Python:", "  import prunecert; prunecert.verify(module, x, eps='2/255'); help(prunecert)"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; returns its exit code.

    Args:
        argv: The verb and its arguments; None: those of the process.

    Raises:
        UserError: Anything about the verb's input.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    while arguments[:1] == ["--plugin"] or (arguments and arguments[0].startswith("--plugin=")):
        word = arguments.pop(0)
        name = word.partition("=")[2] or (arguments.pop(0) if arguments else "")
        # By the environment, so that parts of a run in processes of their own import it as well.
        os.environ[PLUGINS] = ",".join(filter(None, (os.environ.get(PLUGINS, ""), name)))
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return EXIT_OK if arguments else EXIT_USAGE
    name, *rest = arguments
    if name in ("--version", "version"):
        print(f"prunecert {prunecert.__version__}")
        return EXIT_OK
    if name not in VERBS:
        print(f"error: {did_you_mean('verb', name, VERBS)} 'prunecert --help' says what each does.", file=sys.stderr)
        return EXIT_USAGE
    verb = VERBS[name]
    module, _, function = verb.target.partition(":")
    # What a verb records as its command, and what it calls itself, is read from here.
    sys.argv = [f"prunecert {name}", *verb.first, *rest]
    code: int = getattr(importlib.import_module(module), function)()
    return code


def command() -> None:
    """Runs `main` and ends the process; the console script."""
    run_main(main)


if __name__ == "__main__":
    command()
