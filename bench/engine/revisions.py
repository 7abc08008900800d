"""Sets two states of this program beside each other: one verifier, the same questions, in turns, ratios image by image.

    python -m bench.engine.revisions REVISION . --onnx NET.onnx … --images 60 --timeout 20 --threads 1

A state is a git revision, which is unpacked, or a folder with a tree: ``.`` is this one as it stands. Each is asked in
a process of its own (`revision_script.py`), which is warm: start, kernels and loading are not counted, and the first
image is asked once before. Asked are the images that the network classifies correctly and that CROWN of this tree
leaves open. Printed are seconds, of the processor unless ``--clock wall`` is given, by image for each state, the
first's over the second's, and the median and quartiles of these ratios by network and of all; both states are named by
their commits. An image that one proves and the other breaks ends it with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from prunecert.bench.engine.answers import TimedAnswer, contradictions, ratios, show, spread, table, write
from prunecert.bench.engine.complete import OURS, BenchmarkRequest, open_images
from prunecert.bench.options import IMAGES, RADIUS, REPEATS, SECONDS, THREADS
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError, run_main
from prunecert.files import unpack_tar
from prunecert.page_help import PageHelp
from prunecert.printable import shortened
from prunecert.verifiers.adapters.other_interpreter import OtherInterpreter
from prunecert.verifiers.base import Instance, Status

ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = Path(__file__).with_name("revision_script.py")
Clock = Literal["cpu", "wall"]


@dataclass(frozen=True)
class Tree:
    """A state of the program.

    Args:
        folder: Where its packages lie.
        commit: Its commit, short; with ``+changes`` where files differ from it, or empty where git knows nothing of it.
    """

    folder: Path
    commit: str


def _git(folder: Path, *words: str) -> bytes:
    """Runs git.

    Raises:
        UserError: It isn't there, or refuses.
    """
    program = shutil.which("git")
    if program is None:
        raise UserError("There is no git here, which is needed to unpack a revision; install it, or give two folders.")
    result = subprocess.run([program, "-C", str(folder), *words], capture_output=True, check=False)
    if result.returncode:
        said = (result.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"git {' '.join(map(shortened, words))} is refused in {folder}: {shortened(said)}.")
    return result.stdout


def find_tree(text: str, trees: Path) -> Tree:
    """Returns a state of the program, unpacked if it is a revision.

    Args:
        text: A folder that holds the program, or a revision of this one's repository.
        trees: Where revisions are unpacked, by commit; what is there already is used.

    Raises:
        UserError: It is neither.
    """
    folder = Path(text)
    if folder.is_dir():
        if not (folder / "prunecert" / "__init__.py").is_file():
            raise UserError(
                f"The folder {text!r} is refused: it has no prunecert/__init__.py; give a tree, or a commit."
            )
        with contextlib.suppress(UserError):
            changed = _git(folder, "status", "--porcelain", "--untracked-files=no").strip()
            commit = _git(folder, "rev-parse", "--short=12", "HEAD").decode().strip()
            return Tree(folder.resolve(), commit + ("+changes" if changed else ""))
        return Tree(folder.resolve(), "")
    # What begins with a dash would be an option.
    words = "rev-parse", "--verify", "--short=12", "--end-of-options", f"{text}^{{commit}}"
    commit = _git(ROOT, *words).decode().strip()
    folder = trees / commit
    if not (folder / "prunecert" / "__init__.py").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        unpack_tar(_git(ROOT, "archive", "--format=tar", commit), folder)
        if not (folder / "prunecert" / "__init__.py").is_file():
            raise UserError(f"Revision {commit} is refused: it has no package prunecert, which came later.")
    return Tree(folder.resolve(), commit)


class TreeProcess:
    """A state's verifier in a process of its own.

    Args:
        tree: The state.
        label: What its answers are filed under.
        verifier: Which verifier.
        threads: Of the verifier.
        folder: For questions.

    Raises:
        UserError: It can't be started there.
    """

    def __init__(self, tree: Tree, label: str, verifier: str, threads: int, folder: Path) -> None:
        self.label, self._folder = label, folder
        packages = os.pathsep.join([str(tree.folder), *filter(None, [os.environ.get("PYTHONPATH", "")])])
        environment = {"PYTHONPATH": packages, "OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
        self._process = OtherInterpreter(sys.executable, _SCRIPT, environment)
        self._send({"verifier": verifier, "tree": str(tree.folder)})

    def _send(self, request: dict[str, object]) -> dict[str, object]:
        try:
            reply = self._process.ask(request)
        except RuntimeError as error:
            raise UserError(f"{self.label}: {error}.") from error
        if "error" in reply:
            self.close()
            raise UserError(f"{self.label}: {shortened(reply['error'])}.")
        return reply

    def load(self, onnx: Path) -> None:
        """Has a network loaded."""
        self._send({"load": str(onnx.resolve())})

    def ask(self, image: int, question: Instance, clock: Clock) -> TimedAnswer:
        """Returns the answer to a question about the network that is loaded."""
        box = self._folder / "box.npz"
        np.savez(box, lower=question.lower, upper=question.upper)
        reply = self._send(
            {"box": str(box), "label": question.label, "classes": question.classes, "timeout": question.timeout}
        )
        domains = reply["domains"]
        return TimedAnswer(
            question.onnx.name,
            image,
            self.label,
            Status(str(reply["status"])),
            float(str(reply[clock])),
            domains if isinstance(domains, int) else None,
            str(reply["detail"]),
        )

    def close(self) -> None:
        """Ends the process."""
        self._process.close()


@contextlib.contextmanager
def _asking(trees: Sequence[Tree], verifier: str, threads: int) -> Iterator[list[TreeProcess]]:
    """Yields the verifier of each state."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        crew = []
        for which, tree in zip(("before", "now"), trees, strict=True):
            label = f"{which} ({tree.commit or tree.folder.name})"
            crew.append(TreeProcess(tree, label, verifier, threads, Path(folder)))
            stack.callback(crew[-1].close)
        yield crew


def compare(request: BenchmarkRequest, trees: Sequence[Tree], verifier: str, clock: Clock) -> list[TimedAnswer]:
    """Asks both states about every open image, in turns, and prints each image's seconds and ratio.

    Args:
        request: What is asked.
        trees: The earlier state and the later one.
        verifier: Which verifier of theirs.
        clock: Whether seconds are the processor's.

    Raises:
        UserError: A network or a state can't be read.
    """
    request.check()
    answers: list[TimedAnswer] = []
    with _asking(trees, verifier, request.threads) as crew:
        for onnx in request.onnx:
            questions = open_images(onnx, request)
            for place, (image, question) in enumerate(questions.items()):
                if not place:
                    for process in crew:
                        # The first question pays for first allocations.
                        process.load(onnx)
                        process.ask(image, question, clock)
                mine: list[TimedAnswer] = []
                for repeat in range(request.repeats):
                    for process in crew if (place + repeat) % 2 == 0 else crew[::-1]:
                        mine.append(process.ask(image, question, clock))
                answers += mine
                print(_line(image, mine, [process.label for process in crew]), flush=True)
    return answers


def _line(image: int, answers: Sequence[TimedAnswer], labels: Sequence[str]) -> str:
    """Returns what is said of an image: status, seconds (medians) and subdomains by state, and the ratio."""
    parts, medians = [], []
    for label in labels:
        own = [answer for answer in answers if answer.verifier == label]
        medians.append(statistics.median(answer.seconds for answer in own))
        parts.append(f"{label} {own[0].status} {medians[-1]:.4f} s, {own[0].domains} subdomains")
    ratio = f"{medians[0] / medians[1]:.2f}" if medians[1] > 0 else "-"
    return f"  image {image}: {'; '.join(parts)}; ratio {ratio}"


def summary(answers: Sequence[TimedAnswer]) -> list[str]:
    """Returns the ratios' medians and quartiles, by network and of all."""
    labels = sorted({answer.verifier for answer in answers}, key=lambda name: name.startswith("now"))
    if len(labels) < 2:
        return ["no image is open: there is nothing to compare"]
    before, now = labels
    lines = []
    for network in dict.fromkeys(answer.network for answer in answers):
        own = [answer for answer in answers if answer.network == network]
        lines.append(f"ratio an image, {network}: {spread(ratios(own, now, [before], lambda _: True))}")
    everything = spread(ratios(answers, now, [before], lambda _: True))
    return [*lines, f"ratio an image, {before} over {now}: {everything}"]


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    words = argparse.ArgumentParser(
        prog="python -m bench.engine.revisions", description=__doc__.split("\n\n")[0], formatter_class=PageHelp
    )
    words.add_argument("trees", nargs=2, metavar="STATE", help="a git revision, or a folder with a tree (.: this one)")
    words.add_argument("--onnx", nargs="+", type=Path, required=True, help="networks as they are exported")
    words.add_argument("--verifier", default=OURS, help="of both states (default: %(default)s)")
    words.add_argument("--images", type=IMAGES, default=60, help="the first N images of the set (default: 60)")
    words.add_argument("--split", choices=("test", "val"), default="val", help="of CIFAR-10 (default: val)")
    words.add_argument("--eps", type=RADIUS, default=2 / 255, help="radius, linf (default: 2/255)")
    words.add_argument("--timeout", type=SECONDS, default=20.0, help="seconds an image, wall-clock (default: 20)")
    words.add_argument("--threads", type=THREADS, default=1, help="of each (default: 1)")
    words.add_argument("--repeats", type=REPEATS, default=1, help="times that each image is asked (default: 1)")
    words.add_argument("--clock", choices=("cpu", "wall"), default="cpu", help="default: cpu, the processor's seconds")
    words.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    words.add_argument("--keep", type=Path, help="folder that keeps unpacked revisions and their compiled kernels")
    words.add_argument("--out", type=Path, help="write all answers to this JSON file")
    return words


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    options = parser().parse_args(argv)
    names = ("images", "split", "eps", "timeout", "threads", "repeats", "data_root")
    request = BenchmarkRequest(onnx=tuple(options.onnx), **{name: getattr(options, name) for name in names})
    request.check()
    with tempfile.TemporaryDirectory() as folder:
        trees = [find_tree(text, options.keep or Path(folder)) for text in options.trees]
        answers = compare(request, trees, options.verifier, options.clock)
    if answers:
        show(table(answers, request.timeout))
    print("\n".join(summary(answers)))
    if options.out is not None:
        write(answers, options.out)
    sentences = contradictions(answers)
    for sentence in sentences:
        print(f"CONTRADICTION {sentence}")
    return EXIT_REGRESSION if sentences else EXIT_OK


if __name__ == "__main__":
    run_main(main)
