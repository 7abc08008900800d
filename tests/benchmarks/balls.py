"""What is certified over l2 balls: CROWN, SDP-CROWN with CROWN's slopes, and with optimised ones.

    python -m tests.benchmarks.balls models/checkpoints/cnn-small_ibp_eps2_lwm_x10_s0.safetensors --images 30

Takes held-out images, looks for the largest radius, a multiple of `--step`, that each way certifies, and prints a
Markdown table: a row a way, with how many images it certifies at each of `--radii`, its mean radius over the images
that the network classifies correctly, and the median of the processor seconds of a question. CROWN here is as
auto_LiRPA has it: the whole ball, of which nothing is cut off where pixels end.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median

import numpy as np
from scipy import sparse

from prunecert.errors import run_main
from prunecert.models.data import load
from prunecert.models.export import export_onnx
from prunecert.page_help import PageHelp
from prunecert.verifiers.output_spec import OutputSpec
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.balls.ascent import Ascent
from prunecert.verifiers.sparse.balls.ranges import ball_of, bound_disjuncts, find_ranges
from prunecert.verifiers.sparse.balls.walk import Walker
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.onnx.reader import read_network

#: Whether an image keeps its class within a radius: of the network, the image and the property.
Way = Callable[[Checker, Float64Array, OutputSpec, float], bool]


def crown(checker: Checker, image: Float64Array, spec: OutputSpec, radius: float) -> bool:
    """CROWN over the whole ball, as auto_LiRPA has it."""
    ball = ball_of(image, radius, image - 2 * radius, image + 2 * radius)
    return min(bound_disjuncts(checker, ball, spec, balls=False)[0]) > 0


def sdp_crown(checker: Checker, image: Float64Array, spec: OutputSpec, radius: float) -> bool:
    """What `sparse-crown` does."""
    ball = ball_of(image, radius, np.zeros_like(image), np.ones_like(image))
    return min(bound_disjuncts(checker, ball, spec)[0]) > 0


def optimised(checker: Checker, image: Float64Array, spec: OutputSpec, radius: float) -> bool:
    """What `sparse-alpha-crown` does."""
    ball = ball_of(image, radius, np.zeros_like(image), np.ones_like(image))
    walker = Walker(checker, find_ranges(checker, ball))
    rows = sparse.csr_array(np.concatenate([a for a, _ in spec.disjuncts]))
    climb = Ascent(walker, checker.last).climb(rows, -np.concatenate([b for _, b in spec.disjuncts]), 20)
    return bool(climb.lower.min() > 0)


WAYS: dict[str, Way] = {"CROWN": crown, "SDP-CROWN": sdp_crown, "SDP-CROWN, optimised slopes": optimised}


def largest(holds: Callable[[int], bool], most: int, first: int = 0) -> int:
    """Returns the largest number up to `most` that holds, from one on that does: by doubling steps, then halving.

    >>> largest(lambda number: number <= 11, 25), largest(lambda number: number <= 11, 25, 10)
    (11, 11)
    """
    low, high, step = first, most + 1, 1
    while low + step < high:
        if holds(low + step):
            low, step = low + step, 2 * step
        else:
            high = low + step
            break
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


class Timed:
    """Whether a number of steps holds as a radius; keeps the seconds."""

    def __init__(self, holds: Callable[[float], bool], step: float, seconds: list[float]) -> None:
        self._holds, self._step, self._seconds = holds, step, seconds

    def __call__(self, number: int) -> bool:
        begin = time.process_time()
        answer = self._holds(number * self._step)
        self._seconds.append(time.process_time() - begin)
        return answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=PageHelp)
    command.add_argument("checkpoint", type=Path)
    command.add_argument("--images", type=int, default=100)
    command.add_argument("--radii", default="0.1,0.25,0.5")
    command.add_argument("--step", type=float, default=0.02)
    options = command.parse_args(arguments)
    radii = [float(radius) for radius in options.radii.split(",")]
    most = round(max(radii) / options.step)
    data = load("val", download=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        export_onnx(options.checkpoint, path)
        checker = Checker(read_network(path))
    ends: dict[str, list[int]] = {name: [] for name in WAYS}
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for image, label in zip(data.images[: options.images], data.labels[: options.images], strict=True):
        center = image.reshape(-1).astype(np.float64)
        if int(checker.network.evaluate(center[None])[0].argmax()) != int(label):
            continue
        spec, before = OutputSpec.robustness(int(label), data.classes), 0
        for name, way in WAYS.items():
            holds = Timed(functools.partial(way, checker, center, spec), options.step, seconds[name])
            # A later way certifies what an earlier one does, or it is seen here.
            before = largest(holds, most, before if before and holds(before) else 0)
            ends[name].append(before)
        print([own[-1] for own in ends.values()], flush=True)
    heads = " | ".join(f"{radius:g}" for radius in radii)
    print(f"| {len(ends['CROWN'])} of {options.images} images | {heads} | mean radius | seconds, median |")
    print(f"|---|{'---:|' * (len(radii) + 2)}")
    for name, own in ends.items():
        counts = " | ".join(str(sum(end * options.step >= radius - 1e-9 for end in own)) for radius in radii)
        mean = fmean(own) * options.step
        print(f"| {name} | {counts} | {mean:.3f} | {median(seconds[name]):.2f} |")
    return 0


if __name__ == "__main__":
    run_main(main)
