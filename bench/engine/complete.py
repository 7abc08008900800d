"""Times the sparse engine's complete verifier beside others, and with earlier proofs beside without."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prunecert.bench.engine.answers import TimedAnswer
from prunecert.bench.results.vnncomp import all_existing
from prunecert.models.data import Split, load
from prunecert.onnx.io import identity
from prunecert.printable import plural
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, OutputSpec, Verdict
from prunecert.verifiers.process.worker import Worker, workers

OURS = "sparse-bab"
WITH_PROOFS = f"{OURS} + proofs"


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """What is asked.

    Args:
        onnx: The networks.
        images: The first so many of the set.
        split: Of CIFAR-10.
        eps: Radius, linf.
        timeout: Seconds an image.
        threads: Of each verifier.
        repeats: Times that each image is asked.
        data_root: Folder that holds ``cifar-10-batches-py``; None: it is looked for.
        proved: Whether images that CROWN proves are asked about, too.
    """

    onnx: tuple[Path, ...]
    images: int = 200
    split: Split = "test"
    eps: float = 2 / 255
    timeout: float = 60.0
    threads: int = 2
    repeats: int = 1
    data_root: Path | None = None
    proved: bool = False

    def check(self) -> None:
        """Raises a `UserError` that names the networks that are no files."""
        all_existing(*((path, "ONNX") for path in self.onnx))


def open_images(onnx: Path, request: BenchmarkRequest) -> dict[int, Instance]:
    """Returns, by index, questions about the images that are classified correctly and that CROWN leaves open.

    With `BenchmarkRequest.proved` it is all that are classified correctly.
    """
    from prunecert.verifiers.sparse.crown.engine import Engine, Question
    from prunecert.verifiers.sparse.onnx.reader import read_network

    network = read_network(onnx)
    engine = Engine(network)
    data = load(request.split, request.data_root)
    questions = {}
    for index in range(min(request.images, len(data.labels))):
        image, label = data.images[index].astype(np.float32), int(data.labels[index])
        output = network.evaluate(image[None])[0]
        if int(output.argmax()) != label:
            continue
        lower, upper = (np.clip(image + side * np.float32(request.eps), 0, 1).astype(np.float32) for side in (-1, 1))
        spec = OutputSpec.robustness(label, len(output))
        rows = np.concatenate([a for a, _ in spec.disjuncts])
        if not request.proved and engine.bound(Question(lower, upper, rows, np.zeros(len(rows)))).rows.min() > 0:
            continue
        name, classes = f"image {index}", len(output)
        questions[index] = Instance(
            onnx, identity(onnx), lower, upper, spec, request.timeout, name, label, classes, request.eps
        )
    what = "are classified correctly" if request.proved else "are classified correctly and left open by CROWN"
    print(f"{onnx.name}: {len(questions)} of {request.images} images {what}", flush=True)
    return questions


def complete(request: BenchmarkRequest, names: Sequence[str]) -> list[TimedAnswer]:
    """Asks every verifier about every open image.

    Args:
        request: What is asked.
        names: The verifiers.

    Raises:
        UserError: One is unknown, or there is no such file.
    """
    request.check()
    for name in names:
        VERIFIERS.get(name)
    names = list(names)
    answers: list[TimedAnswer] = []
    with workers(names, threads=request.threads) as crew:
        for onnx in request.onnx:
            questions = open_images(onnx, request)
            if not questions:
                continue
            for name in names:
                # The first question pays for loading, compiling and first allocations.
                crew[name].verify(list(questions.values())[:1])
            for repeat in range(request.repeats):
                for turn, (image, question) in enumerate(questions.items()):
                    start = (turn + repeat) % len(names)
                    for name in names[start:] + names[:start]:
                        answers.append(_answer(image, question, name, crew[name].verify([question])[0]))
    return answers


def reuse(request: BenchmarkRequest) -> list[TimedAnswer]:
    """Asks the search about every open image of a chain, without and with the proofs of the networks before.

    Args:
        request: What is asked; its networks are the chain, in order.

    Raises:
        UserError: There is no such file.
    """
    request.check()
    answers: list[TimedAnswer] = []
    for repeat in range(request.repeats):
        with tempfile.TemporaryDirectory() as folder:
            plain = Worker(OURS, {}, threads=request.threads)
            kept = Worker(OURS, {"proofs": folder}, threads=request.threads)
            with plain, kept:
                for onnx in request.onnx:
                    questions = open_images(onnx, request)
                    for worker in (plain, kept):
                        # Loads the network, and asks about no image of the set.
                        worker.verify(_warm(list(questions.values())))
                    for turn, (image, question) in enumerate(questions.items()):
                        both = [(OURS, plain), (WITH_PROOFS, kept)]
                        for name, worker in both if (turn + repeat) % 2 else reversed(both):
                            answers.append(_answer(image, question, name, worker.verify([question])[0]))
    return answers


def _warm(questions: Sequence[Instance]) -> list[Instance]:
    return [replace(item, lower=item.upper) for item in questions[:1]]


def _answer(image: int, question: Instance, name: str, verdict: Verdict) -> TimedAnswer:
    seconds = verdict.times.wall_s
    size = "" if verdict.domains is None else f", {plural(verdict.domains, 'subdomain')}"
    print(f"  {question.name}: {name} {verdict.status} {seconds:.3f} s{size}", flush=True)
    return TimedAnswer(
        question.onnx.name,
        image,
        name,
        verdict.status,
        seconds,
        verdict.domains,
        verdict.detail,
    )
