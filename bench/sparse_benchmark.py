"""Time the sparse engine's complete verifier beside others, and with earlier proofs beside without.

    python -m bench.sparse_benchmark complete --onnx NET.onnx … --images 200 --timeout 60
    python -m bench.sparse_benchmark reuse --onnx DENSE.onnx X2.onnx X10.onnx X20.onnx X100.onnx --images 200

Asked are the images of the set that a network classifies correctly and that CROWN leaves open. `complete` asks every
verifier about each image in turn, in an order that changes from image to image, all with the same limit, in worker
processes that are warm; start-up and loading are not counted. `reuse` takes the networks for a chain of neighbours, and
asks the search with and without the proofs of the networks before. Times are wall-clock; an image that is not decided
counts with its time in the median and with twice the limit in PAR2. A verdict of one verifier that contradicts
another's ends the command with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prunecert.bench.options import IMAGES, RADIUS, REPEATS, SECONDS, THREADS
from prunecert.bench.report.medium import Table
from prunecert.bench.results.outcome import contradictions as all_contradictions
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError, run_main
from prunecert.models.data import Split, load
from prunecert.onnx.io import identity
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, OutputSpec, Status, Verdict
from prunecert.verifiers.process.worker import Worker, workers

OURS = "sparse-bab"


@dataclass(frozen=True)
class TimedAnswer:
    """One verifier on one image.

    Args:
        network: File name.
        image: Index in the set.
        verifier: Name, or ``sparse-bab + proofs``.
        status: Of the verdict.
        seconds: Wall-clock, without start-up.
        domains: Subdomains, None where the verifier counts none.
        detail: Of the verdict.
    """

    network: str
    image: int
    verifier: str
    status: Status
    seconds: float
    domains: int | None
    detail: str


def open_images(
    onnx: Path, split: Split, count: int, eps: float, timeout: float, root: Path | None
) -> dict[int, Instance]:
    """Returns, by index, questions about the images that are classified correctly and that CROWN leaves open."""
    from prunecert.verifiers.sparse.crown.engine import Engine, Question
    from prunecert.verifiers.sparse.onnx.reader import read_network

    network = read_network(onnx)
    engine = Engine(network)
    data = load(split, root)
    questions = {}
    for index in range(min(count, len(data.labels))):
        image, label = data.images[index].astype(np.float32), int(data.labels[index])
        output = network.evaluate(image[None])[0]
        if int(output.argmax()) != label:
            continue
        lower, upper = (np.clip(image + side * np.float32(eps), 0, 1).astype(np.float32) for side in (-1, 1))
        spec = OutputSpec.robustness(label, len(output))
        rows = np.concatenate([a for a, _ in spec.disjuncts])
        if engine.bound(Question(lower, upper, rows, np.zeros(len(rows)))).rows.min() > 0:
            continue
        questions[index] = Instance(
            onnx, identity(onnx), lower, upper, spec, timeout, f"image {index}", label, len(output), eps
        )
    return questions


def complete(options: argparse.Namespace) -> list[TimedAnswer]:
    """Asks every verifier about every open image."""
    names = [name for name in options.verifiers.split(",") if name]
    for name in names:
        VERIFIERS.get(name)
    answers: list[TimedAnswer] = []
    with workers(names, threads=options.threads) as crew:
        for onnx in options.onnx:
            questions = open_images(
                onnx, options.split, options.images, options.eps, options.timeout, options.data_root
            )
            print(f"{onnx.name}: CROWN leaves {len(questions)} of {options.images} images open", flush=True)
            if not questions:
                continue
            for name in names:
                # The first question pays for loading, compiling and first allocations.
                crew[name].verify(list(questions.values())[:1])
            for repeat in range(options.repeats):
                for turn, (image, question) in enumerate(questions.items()):
                    start = (turn + repeat) % len(names)
                    for name in names[start:] + names[:start]:
                        answers.append(_answer(image, question, name, crew[name].verify([question])[0]))
    return answers


def reuse(options: argparse.Namespace) -> list[TimedAnswer]:
    """Asks the search about every open image of a chain, without and with the proofs of the networks before."""
    answers: list[TimedAnswer] = []
    for repeat in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            plain = Worker(OURS, {}, threads=options.threads)
            kept = Worker(OURS, {"proofs": folder}, threads=options.threads)
            with plain, kept:
                for onnx in options.onnx:
                    questions = open_images(
                        onnx, options.split, options.images, options.eps, options.timeout, options.data_root
                    )
                    print(f"{onnx.name}: CROWN leaves {len(questions)} of {options.images} images open", flush=True)
                    for worker in (plain, kept):
                        # Loads the network, and asks about no image of the set.
                        worker.verify(_warm(list(questions.values())))
                    for turn, (image, question) in enumerate(questions.items()):
                        both = [(OURS, plain), (f"{OURS} + proofs", kept)]
                        for name, worker in both if (turn + repeat) % 2 else reversed(both):
                            answers.append(_answer(image, question, name, worker.verify([question])[0]))
    return answers


def _warm(questions: Sequence[Instance]) -> list[Instance]:
    return [replace(item, lower=item.upper) for item in questions[:1]]


def _answer(image: int, question: Instance, name: str, verdict: Verdict) -> TimedAnswer:
    seconds = verdict.times.wall_s
    print(f"  {question.name}: {name} {verdict.status} {seconds:.3f} s, {verdict.domains} domains", flush=True)
    return TimedAnswer(
        question.onnx.name,
        image,
        name,
        verdict.status,
        seconds,
        verdict.domains,
        verdict.detail,
    )


_COLUMNS = (
    ("network", False),
    ("verifier", False),
    *((heading, True) for heading in ("images", "unsat", "sat", "open", "median s", "quartiles s", "PAR2 s")),
    ("domains, median", True),
)


def table(answers: Sequence[TimedAnswer], timeout: float) -> str:
    """Returns a Markdown table: a line for each network and verifier."""
    rows = []
    for network, verifier, group in _groups(answers):
        seconds = [answer.seconds for answer in group]
        counts = {status: sum(answer.status is status for answer in group) for status in (Status.UNSAT, Status.SAT)}
        undecided = len(group) - sum(counts.values())
        par2 = statistics.fmean(a.seconds if a.status.decided else 2 * timeout for a in group)
        low, middle, high = np.percentile(seconds, (25, 50, 75))
        domains = [answer.domains for answer in group if answer.domains is not None]
        rows.append(
            [
                network,
                verifier,
                *map(str, (len(group), counts[Status.UNSAT], counts[Status.SAT], undecided)),
                f"{middle:.3f}",
                f"{low:.3f}–{high:.3f}",
                f"{par2:.3f}",
                f"{statistics.median(domains) if domains else ''}",
            ]
        )
    return "\n".join(Table(_COLUMNS, rows).markdown())


def _groups(answers: Sequence[TimedAnswer]) -> Iterator[tuple[str, str, list[TimedAnswer]]]:
    keys = dict.fromkeys((answer.network, answer.verifier) for answer in answers)
    for network, verifier in keys:
        yield network, verifier, [a for a in answers if (a.network, a.verifier) == (network, verifier)]


def ratios(
    answers: Sequence[TimedAnswer], ours: str, others: Sequence[str], keep: Callable[[TimedAnswer], bool]
) -> list[float]:
    """Returns for each image the faster of the others' median time over ours; one that is not decided counts, too."""
    factors = []
    for network, image in dict.fromkeys((a.network, a.image) for a in answers if keep(a)):
        mine = [a for a in answers if (a.network, a.image) == (network, image)]
        medians = {
            name: statistics.median(a.seconds for a in mine if a.verifier == name)
            for name in (ours, *others)
            if any(a.verifier == name for a in mine)
        }
        if ours in medians and len(medians) > 1:
            factors.append(min(value for name, value in medians.items() if name != ours) / medians[ours])
    return factors


def asked_before(answers: Sequence[TimedAnswer]) -> set[tuple[str, int]]:
    """Returns networks and images for which an earlier network of the chain was asked about the image."""
    pairs: set[tuple[str, int]] = set()
    networks = list(dict.fromkeys(answer.network for answer in answers))
    images = {name: {answer.image for answer in answers if answer.network == name} for name in networks}
    for place, name in enumerate(networks):
        earlier = set().union(*(images[before] for before in networks[:place]))
        pairs |= {(name, image) for image in images[name] & earlier}
    return pairs


def contradictions(answers: Sequence[TimedAnswer]) -> list[str]:
    """Names images that are proved and broken."""
    claims = ((f"{a.network}, image {a.image}", a.status, a.verifier) for a in answers)
    return [
        f"{question}: sat by {broken} and unsat by {proved}" for question, proved, broken in all_contradictions(claims)
    ]


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    commands = argparse.ArgumentParser(prog="prunecert sparse-benchmark", description=__doc__.split("\n\n")[0])
    verbs = commands.add_subparsers(dest="verb", required=True)
    for verb in ("complete", "reuse"):
        sub = verbs.add_parser(verb)
        sub.add_argument("--onnx", nargs="+", type=Path, required=True, help="networks; for reuse in the chain's order")
        sub.add_argument("--images", type=IMAGES, default=200, help="the first N images of the set (default: 200)")
        sub.add_argument("--split", choices=("test", "val"), default="test", help="of CIFAR-10 (default: test)")
        sub.add_argument("--eps", type=RADIUS, default=2 / 255, help="radius, linf (default: 2/255)")
        sub.add_argument("--timeout", type=SECONDS, default=60.0, help="seconds an image (default: 60)")
        sub.add_argument("--threads", type=THREADS, default=2, help="of each verifier (default: 2)")
        sub.add_argument("--repeats", type=REPEATS, default=1, help="times that each image is asked (default: 1)")
        sub.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
        sub.add_argument("--out", type=Path, help="write all answers to this JSON file")
    verbs.choices["complete"].add_argument(
        "--verifiers", default="sparse-bab,neuralsat,abcrown", help="comma-separated (default: %(default)s)"
    )
    return commands


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    options = parser().parse_args(argv)
    for path in options.onnx:
        if not path.is_file():
            raise UserError(f"Network {path} is refused because there is no such file; allowed are ONNX files.")
    if options.verb == "complete":
        answers = complete(options)
        others = [name for name in options.verifiers.split(",") if name and name != OURS]
        ours = OURS
    else:
        answers = reuse(options)
        ours, others = f"{OURS} + proofs", [OURS]
    print(table(answers, options.timeout))
    first = options.onnx[0].name if options.verb == "reuse" else None
    factors = ratios(answers, ours, others, lambda answer: answer.network != first)
    if factors:
        low, middle, high = np.percentile(factors, (25, 50, 75))
        what = "without proofs over with, after the first network" if first else "the faster of the others over ours"
        print(f"ratio an image ({what}): median {middle:.2f}, quartiles {low:.2f} to {high:.2f}, {len(factors)} images")
    if first:
        earlier_pairs = asked_before(answers)
        earlier = ratios(answers, ours, others, lambda a: (a.network, a.image) in earlier_pairs)
        new = ratios(answers, ours, others, lambda a: a.network != first and (a.network, a.image) not in earlier_pairs)
        for what, part in (("open at an earlier network, too", earlier), ("open for the first time", new)):
            if part:
                low, middle, high = np.percentile(part, (25, 50, 75))
                print(f"  {what}: median {middle:.2f}, quartiles {low:.2f} to {high:.2f}, {len(part)} images")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        data = [{**vars(answer), "status": str(answer.status)} for answer in answers]
        options.out.write_text(json.dumps(data, indent=1) + "\n")
    for line in contradictions(answers):
        print(f"CONTRADICTION {line}")
    return EXIT_REGRESSION if contradictions(answers) else EXIT_OK


if __name__ == "__main__":
    run_main(main)
