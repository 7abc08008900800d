"""What a training step takes: images a second, and how much each way of computing it saves or costs.

    python -m tests.benchmarks.training --networks cnn-large,cnn5 --objectives ibp,mtl-ibp
    python -m tests.benchmarks.training --networks cnn-large --objectives mtl-ibp --against REVISION --ways ''
    python -m tests.benchmarks.training --device cuda --batch 512 --batches 40 --ways bfloat16,unfused

Prints a Markdown table, a row a network and objective: images a second of a step as the recipe has it by default, and
for each way of `--ways` its time over that step's, so that below 1 is faster. With `--against` the last column is this
tree's time over that of a git revision, which is unpacked beside it and works in a process of its own, as this tree
then does. All that is compared takes turns in one run, `--rounds` times, and medians are compared: other programs
disturb them alike. A round is `--batches` batches of made-up images at full radius, with augmentation, the optimiser's
step and what else training does in an epoch. The command needs a quiet machine all the same, and `--threads` as many
as are meant.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

ROOT = Path(__file__).parents[2]
_RADIUS = 2 / 255
#: Seconds of one round.
Work = Callable[[], float]


@contextmanager
def fused(value: bool) -> Iterator[None]:
    """Has optimisers step all their weights in one kernel, or not, whatever the device's default is."""
    from prunecert.models import training
    from prunecert.models.running import optimizer_of as plain

    def optimizer_of(*arguments: Any) -> Any:
        optimizer = plain(*arguments)
        for group in optimizer.param_groups:
            group["fused"] = value
        return optimizer

    with mock.patch.object(training, "optimizer_of", optimizer_of):
        yield


#: What is done otherwise: keys of the recipe, and what surrounds the training.
WAYS: Mapping[str, tuple[Mapping[str, Any], Callable[[], AbstractContextManager[None]]]] = {
    "bfloat16": ({"precision": "bfloat16"}, contextlib.nullcontext),
    "channels-last": ({"memory_format": "channels-last"}, contextlib.nullcontext),
    "both": ({"precision": "bfloat16", "memory_format": "channels-last"}, contextlib.nullcontext),
    "fused": ({}, lambda: fused(True)),
    "unfused": ({}, lambda: fused(False)),
    "radam": ({"optimizer": "radam"}, contextlib.nullcontext),
    "no-clipping": ({"grad_clip": 0.0}, contextlib.nullcontext),
}


def rounds_of(job: Mapping[str, Any], root: Path = ROOT) -> Work:
    """Returns what trains one round and says how long it took, of a tree that is first on the path, old ones included.

    Args:
        job: ``network``, ``objective``, ``recipe``, ``batch``, ``batches`` and ``device``; and ``threads``, or 0.
        root: The tree.

    Raises:
        RuntimeError: Another tree is imported.
    """
    import torch

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    models = "prunecert.models" if (root / "prunecert" / "models").is_dir() else "models"
    registry, data, recipe, training = (
        importlib.import_module(name) for name in (models, f"{models}.data", f"{models}.recipe", f"{models}.training")
    )
    if not Path(str(training.__file__)).resolve().is_relative_to(root.resolve()):
        raise RuntimeError(f"{training.__file__} is imported, which is not of {root}")
    try:
        stage_of = importlib.import_module(f"{models}.schedules").Stage
    except ImportError:
        stage_of = training.Stage
    images = np.random.default_rng(0).random((job["batch"] * job["batches"], 3, 32, 32), dtype=np.float32)
    places = np.arange(len(images))
    split = data.Dataset(
        images=images,
        labels=places % 10,
        indices=places,
        split="train",
        fingerprint="0" * 64,
        official=False,
        sample=False,
        source="made up",
    )
    torch.manual_seed(0)
    model = registry.NETWORKS.get(job["network"])().to(job["device"])
    whole = recipe.Recipe.from_dict({**job["recipe"], "batch_size": job["batch"]}, job["objective"])
    trainer = training.Trainer(whole, job["objective"], split, job["device"], lambda *_, **__: None)

    def work() -> float:
        begin = time.perf_counter()
        # The loss of an epoch is read in the end, so that a device has done its work by then.
        trainer.run(model, stage_of("finetune", 1, whole.finetune_lr, _RADIUS))
        return time.perf_counter() - begin

    return work


class Tree:
    """Another tree's rounds, in a process of its own.

    Args:
        root: The tree: a checkout, or what a revision was unpacked into.
        job: See `rounds_of`.
    """

    def __init__(self, root: Path, job: Mapping[str, Any]) -> None:
        self._root = root
        environment = {**os.environ, "PYTHONPATH": str(root)}
        # Without its own folder before all others, where modules are called as others are elsewhere.
        command = [sys.executable, "-P", str(Path(__file__).resolve()), "--work", json.dumps(job)]
        self._process = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self) -> float:
        """Trains a round; returns its seconds.

        Raises:
            RuntimeError: It can't: the tree is too old, or has no such network; it has said why.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print("round", file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the tree {self._root} can't train that")
        return float(line)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def work_on(job: Mapping[str, Any]) -> None:
    """Trains a round for each line that comes in, and prints its seconds: what `Tree` talks to."""
    work = rounds_of(job, Path.cwd())
    for _ in sys.stdin:
        print(work(), flush=True)


@contextmanager
def unpacked(revision: str) -> Iterator[Path]:
    """Yields a folder with the files of a git revision of this checkout."""
    # Not above: this module also runs in trees that lack it.
    from prunecert.files import unpack_tar

    # Training needs no checkpoints, which are nearly all of it.
    command = ["git", "archive", revision, "--", ".", ":(exclude)models/checkpoints", ":(exclude)results"]
    data = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        unpack_tar(data, Path(folder))
        yield Path(folder)


def in_turn(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each work, which take turns; a first round of each doesn't count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            duration = work()
            if number:
                seconds[name].append(duration)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(job: Mapping[str, Any], ways: Sequence[str], rounds: int, other: Path | None) -> dict[str, float]:
    """Returns images a second of a step, and ratios of times by way.

    Args:
        job: See `rounds_of`.
        ways: Names of `WAYS`.
        rounds: How often each is timed.
        other: Another tree to be compared with, or None.
    """
    works: dict[str, Work] = {"images/s": rounds_of(job)}
    for way in ways:
        keys, context = WAYS[way]
        works[way] = _within(context, rounds_of({**job, "recipe": {**job["recipe"], **keys}}))
    seconds = in_turn(works, rounds)
    numbers = {name: value / seconds["images/s"] for name, value in seconds.items()}
    numbers["images/s"] = job["batch"] * job["batches"] / seconds["images/s"]
    if other is not None:
        trees = {"own": Tree(ROOT, job), "other": Tree(other, job)}
        try:
            medians = in_turn(trees, rounds)
        finally:
            for tree in trees.values():
                tree.close()
        numbers["against"] = medians["own"] / medians["other"]
    return numbers


def _within(context: Callable[[], AbstractContextManager[None]], work: Work) -> Work:
    def wrapped() -> float:
        with context():
            return work()

    return wrapped


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    from prunecert.page_help import PageHelp

    command = argparse.ArgumentParser(description=__doc__, formatter_class=PageHelp)
    command.add_argument("--networks", default="cnn-small,cnn-large,resnet-2b,cnn5")
    command.add_argument("--objectives", default="natural,ibp,mtl-ibp")
    command.add_argument("--ways", default="bfloat16,channels-last,both,fused", help=f"of {', '.join(WAYS)}")
    command.add_argument("--recipe", default="{}", help="keys of the recipe as JSON, for all of them")
    command.add_argument("--batch", type=int, default=128)
    command.add_argument("--batches", type=int, default=4)
    command.add_argument("--rounds", type=int, default=7)
    command.add_argument("--device", default="cpu")
    command.add_argument("--threads", type=int, default=0)
    command.add_argument("--against", metavar="REVISION", help="of this checkout, e.g. HEAD~20")
    command.add_argument("--work", help=argparse.SUPPRESS)
    options = command.parse_args(arguments)
    if options.work is not None:
        work_on(json.loads(options.work))
        return 0
    ways = [way for way in options.ways.split(",") if way]
    heads = ["network", "objective", "images/s", *ways, *([f"against {options.against}"] if options.against else [])]
    print(f"| {' | '.join(heads)} |\n|---|---|{'---:|' * (len(heads) - 2)}")
    with unpacked(options.against) if options.against else contextlib.nullcontext() as other:
        for network in options.networks.split(","):
            for objective in options.objectives.split(","):
                keys = ("batch", "batches", "device", "threads")
                job = {"network": network, "objective": objective, "recipe": json.loads(options.recipe)}
                numbers = measure({**job, **{key: getattr(options, key) for key in keys}}, ways, options.rounds, other)
                cells = [f"{numbers.pop('images/s'):,.0f}", *(f"{number:.2f}" for number in numbers.values())]
                print(f"| {' | '.join([network, objective, *cells])} |", flush=True)
    return 0


if __name__ == "__main__":
    # Another revision's package may be what is imported here.
    from prunecert.errors import run_main

    run_main(main)
