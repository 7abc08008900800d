"""Times the sparse engine's bounds beside auto_LiRPA's, in one process, alternating; and the machine's limits.

``python -m bench.engine.kernels bounds`` prints a table for random networks of the layers of `cnn-small` and
`cnn-large` at several sparsities, or for the ONNX files of ``--onnx``. ``python -m bench.engine.kernels kernel``
measures the multiply-add peak of one core, the memory's bandwidth, and the kernels' time for a column of a unit.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from prunecert.errors import UserError, did_you_mean, run_main
from prunecert.page_help import PageHelp
from prunecert.verifiers.adapters import autolirpa
from prunecert.verifiers.sparse.arrays import LANES32, PAIRED_LANES32
from prunecert.verifiers.sparse.crown.engine import Engine, Method, Question
from prunecert.verifiers.sparse.llvm import backward_unit
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.onnx.reader import read_network

FloatArray = npt.NDArray[np.float32]

#: Layers of the networks: convolutions (out, in, kernel, stride, pad) and linear layers (out, in).
LAYERS: dict[str, tuple[tuple[int, ...], ...]] = {
    "cnn-small": ((16, 3, 4, 2, 1), (32, 16, 4, 2, 1), (100, 2048), (10, 100)),
    "cnn-large": (
        *((32, 3, 3, 1, 1), (32, 32, 4, 2, 1), (64, 32, 3, 1, 1), (64, 64, 4, 2, 1)),
        *((512, 4096), (512, 512), (10, 512)),
    ),
}
EPS = 2 / 255


def random_network(name: str, sparsity: float, path: Path, seed: int = 0, *, scaled: bool = True) -> Path:
    """Writes a network of the named layers: uniform weights as torch draws them, a share of them zero at random.

    The rest is scaled up to keep the variance of a layer's outputs, as training after pruning does. Without `scaled`,
    it is as drawn, and biases are zero: more ReLUs stay unstable then.
    """
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(seed)
    nodes, tensors, value = [], [], "input"
    for index, layer in enumerate(LAYERS[name]):
        shape = (*layer[:2], layer[2], layer[2]) if len(layer) > 2 else layer
        bound = 1 / np.sqrt(np.prod(shape[1:]) * (1 - sparsity if scaled else 1))
        weight = rng.uniform(-bound, bound, shape) * (rng.random(shape) >= sparsity)
        tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"w{index}"))
        bias = rng.uniform(-bound, bound, shape[0]) * scaled
        tensors.append(numpy_helper.from_array(bias.astype(np.float32), f"b{index}"))
        last = index == len(LAYERS[name]) - 1
        result, names = "output" if last else f"z{index}", [f"w{index}", f"b{index}"]
        if len(layer) > 2:
            nodes.append(
                helper.make_node(
                    "Conv", [value, *names], [result], kernel_shape=shape[2:], strides=[layer[3]] * 2,
                    pads=[layer[4]] * 4,
                )
            )  # fmt: skip
        else:
            if len(LAYERS[name][index - 1]) > 2:
                nodes.append(helper.make_node("Flatten", [value], ["flat"]))
                value = "flat"
            nodes.append(helper.make_node("Gemm", [value, *names], [result], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [result], [f"h{index}"]))
            value = f"h{index}"
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 10])],
        tensors,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), str(path))
    return path


def questions(network: Network, count: int, images: FloatArray | None = None) -> list[Question]:
    """Returns margins of the predicted class over boxes of radius 2/255 round images, or round uniform noise."""
    if images is None:
        rng = np.random.default_rng(1)
        images = np.stack([rng.random(network.input_shape, dtype=np.float32) for _ in range(count)])
    drawn_questions = []
    for image in images[:count]:
        label = int(network.evaluate(image[None])[0].argmax())
        outputs = network.nodes[-1].size
        matrix = np.delete(np.eye(outputs)[label] - np.eye(outputs), label, axis=0)
        lower, upper = np.clip(image - np.float32(EPS), 0, 1), np.clip(image + np.float32(EPS), 0, 1)
        drawn_questions.append(Question(lower, upper, matrix, np.zeros(len(matrix))))
    return drawn_questions


class LirpaBounds:
    """auto_LiRPA on the same questions.

    Args:
        path: The ONNX file.
    """

    def __init__(self, path: Path) -> None:
        import torch

        from prunecert.verifiers.formats.onnx_torch import read_onnx

        self._torch, self._library = torch, autolirpa.library()
        module = read_onnx(path)
        self._bounded = self._library.BoundedModule(
            module, torch.zeros(1, *module.input_shape), bound_opts={"verbosity": 0}
        )
        self._bounded.eval()

    def bound(self, batch: Sequence[Question], method: Method, chunk: int = 1) -> npt.NDArray[np.float64]:
        """Returns lower bounds [images, rows]; `chunk` images are bounded together."""
        torch, rows = self._torch, []
        for first in range(0, len(batch), chunk):
            part = batch[first : first + chunk]
            low, high = (
                torch.from_numpy(np.stack([getattr(question, side) for question in part]))
                for side in ("lower", "upper")
            )
            ball = self._library.PerturbationLpNorm(norm=np.inf, x_L=low, x_U=high)
            box = self._library.BoundedTensor((low + high) / 2, ball)
            matrix = torch.from_numpy(np.stack([question.matrix for question in part])).float()
            with torch.no_grad():
                bounds, _ = self._bounded.compute_bounds(x=(box,), C=matrix, method=method.upper(), bound_upper=False)
            rows.append(bounds.double().numpy())
        return np.concatenate(rows)

    def best_chunk(
        self, batch: Sequence[Question], method: Method, seconds: float, clock: Callable[[], float]
    ) -> tuple[int, float]:
        """Returns the number of images together at which one takes least time, and that time.

        Sizes are tried upwards, each twice, as long as the next is expected to fit into `seconds`.
        """
        best, least = 1, math.inf
        begin = clock()
        for chunk in CHUNKS:
            if chunk > len(batch) or (chunk > 1 and 2 * chunk * least > seconds - (clock() - begin)):
                break
            for _ in range(2):
                before = clock()
                self.bound(batch[:chunk], method, chunk)
                each = (clock() - before) / chunk
                if each < least:
                    best, least = chunk, each
        return best, least


#: Numbers of images that auto_LiRPA is tried with together.
CHUNKS = (1, 2, 5, 10, 25, 100)


def compare(
    path: Path,
    counts: Sequence[int],
    method: Method,
    repeats: int,
    threads: int,
    seconds: float,
    clock: Callable[[], float],
) -> None:
    """Prints a line of the table for each number of images.

    Args:
        path: The network.
        counts: Numbers of images.
        method: Of the bounds.
        repeats: Runs of each, alternating, after some of each that aren't counted.
        threads: Of both.
        seconds: What auto_LiRPA may take for a line, about: where all images in all repeats take longer, it bounds
            the first few alone, and then there are fewer repeats. Times are of one image.
        clock: What is measured.
    """
    import torch

    torch.set_num_threads(threads)
    network = read_network(path)
    engine, library = Engine(network, threads), LirpaBounds(path)
    for count in counts:
        batch = questions(network, count)
        library.bound(batch[:1], method, 1)
        chunk, each = library.best_chunk(batch, method, seconds / 4, clock)
        times = max(1, min(repeats, int(seconds / (each * chunk))))
        some = batch[: min(count, max(chunk, int(seconds / times / each) // chunk * chunk))]
        mine: list[float] = []
        theirs, speeds = [], []
        for _ in range(2):
            engine.bound_many(batch, method, hidden=False)
        for _ in range(times):
            before = engine.multiplications()
            # One image alone is too short for the clock of a busy machine.
            spent: list[float] = []
            while not spent or (len(spent) < 20 and sum(spent) < 0.02):
                begin = clock()
                results = engine.bound_many(batch, method, hidden=False)
                spent.append(clock() - begin)
            mine.append(statistics.median(spent) / count)
            speeds.append(2e-9 * (engine.multiplications() - before) / sum(spent))
            begin = clock()
            other = library.bound(some, method, chunk)
            theirs.append((clock() - begin) / len(some))
        ratios = sorted(b / a for a, b in zip(mine, theirs, strict=True))
        differences = np.stack([item.rows for item in results[: len(some)]]) - other
        print(
            f"{path.stem:<28} {count:>4} {1e3 * statistics.median(theirs):>11.3f} {chunk:>5} {len(some):>4} "
            f"{1e3 * statistics.median(mine):>9.3f} {statistics.median(ratios):>7.1f} "
            f"{ratios[0]:>6.1f} to {ratios[-1]:<6.1f} {len(ratios):>3} {differences.mean():>9.1e} "
            f"{max(0.0, -differences.min()):>10.1e} {max(0.0, differences.max()):>11.1e} "
            f"{statistics.mean(item.unstable for item in results):>9.0f} {statistics.median(speeds):>8.1f}",
            flush=True,
        )


@intrinsic
def _multiply_adds(typing: Any, rounds: Any) -> Any:
    """Runs `rounds` times 16 independent multiply-adds of vectors of 16; returns a number that depends on all."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        del signature
        vector = ir.VectorType(ir.FloatType(), LANES32)
        factor = ir.Constant(vector, [0.999] * LANES32)
        sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [float(k)] * LANES32)) for k in range(16)]
        fused = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{LANES32}f32"
        )
        zero, one = ir.Constant(ir.IntType(64), 0), ir.Constant(ir.IntType(64), 1)
        with cgutils.for_range_slice(builder, zero, args[0], one, ir.IntType(64)):
            for place in sums:
                builder.store(builder.call(fused, [builder.load(place), factor, factor]), place)
        total = builder.load(sums[0])
        for place in sums[1:]:
            total = builder.fadd(total, builder.load(place))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.float32(rounds), generate


@numba.njit(nogil=True)
def _peak(rounds):  # type: ignore[no-untyped-def]
    return _multiply_adds(rounds)


def _unit_loop(process: Any, height: int) -> Any:
    @numba.njit(nogil=True)
    def run(coefficients, planes, units, sums, columns, each, weights, rounds):  # type: ignore[no-untyped-def]
        for _ in range(rounds):
            for unit in range(units):
                process(
                    coefficients, planes, unit * height, sums, columns, unit * each, (unit + 1) * each, weights,
                    unit * each * height, (0, 0),
                )  # fmt: skip

    return run


def _best(work: Callable[[], object], repeats: int = 7) -> float:
    """Returns the shortest time of some runs, in seconds, after one that compiles."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def kernel() -> None:
    """Prints the machine's limits, and what the kernels reach of them, for one core."""
    rounds = 1_000_000
    peak = 2 * 16 * LANES32 * rounds / _best(lambda: _peak(rounds)) / 1e9
    big = np.zeros(32 * 2**20, dtype=np.float32)
    copy = np.empty_like(big)
    bandwidth = 2 * big.nbytes / _best(lambda: np.copyto(copy, big)) / 1e9
    print(f"one core: {peak:.0f} GFLOP/s of float32 multiply-adds, {bandwidth:.1f} GB/s memory (copy)")
    print(f"a column of a unit, {PAIRED_LANES32} rows a block: nanoseconds (GFLOP/s, share of the peak)")
    rng = np.random.default_rng(0)
    units, each = 64, 512
    print(
        f"{'neurons':>8} "
        + " ".join(f"{f'{count * PAIRED_LANES32 * 4 // 1024} KiB of targets':>28}" for count in SPREADS)
    )
    for height, process in ((1, backward_unit.process1), (4, backward_unit.process4), (8, backward_unit.process8)):
        run, cells = _unit_loop(process, height), []
        for count in SPREADS:
            coefficients = np.zeros((units * height + count, PAIRED_LANES32), dtype=np.float32)
            planes = np.ones((units * height, 4), dtype=np.float32)
            columns = np.concatenate([np.sort(rng.choice(count, each, replace=False)) for _ in range(units)])
            columns = (columns + units * height).astype(np.int32)
            weights = rng.standard_normal(units * each * height).astype(np.float32)
            sums = np.zeros(PAIRED_LANES32, dtype=np.float32)
            seconds = _best(lambda: run(coefficients, planes, units, sums, columns, each, weights, 20))  # noqa: B023
            column = seconds / (20 * units * each)
            speed = 2 * height * PAIRED_LANES32 / column / 1e9
            cells.append(f"{f'{column * 1e9:.2f} ({speed:.0f}, {speed / peak:.0%})':>28}")
        print(f"{height:>8} " + " ".join(cells))


#: Variables that the columns of `kernel` are spread over: the first fit the first cache, the last hardly the second.
SPREADS = (512, 4096, 32768)


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.engine.kernels", description=__doc__, formatter_class=PageHelp
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    bounds = verbs.add_parser("bounds", help="times beside auto_LiRPA's", formatter_class=PageHelp)
    bounds.add_argument("--networks", default="cnn-small,cnn-large", help="random networks: %(default)s")
    bounds.add_argument("--unscaled", action="store_true", help="weights as drawn, and no biases")
    bounds.add_argument("--sparsities", default="0,0.5,0.8,0.9,0.95,0.99", help="of their weights: %(default)s")
    bounds.add_argument("--onnx", nargs="+", type=Path, default=[], help="these files instead")
    bounds.add_argument("--images", default="1,100", help="numbers of images: %(default)s")
    bounds.add_argument("--method", default="crown", choices=get_args(Method))
    bounds.add_argument("--repeats", type=int, default=5)
    bounds.add_argument("--threads", type=int, default=2)
    bounds.add_argument(
        "--clock", default="wall", choices=("wall", "cpu"), help="cpu: of all threads, where others run"
    )
    bounds.add_argument(
        "--seconds", type=float, default=60.0, help="about the most that auto_LiRPA may take for a line: %(default)s"
    )
    verbs.add_parser("kernel", help="the machine's limits and the kernels", formatter_class=PageHelp)
    options = parser.parse_args()
    # auto_LiRPA goes through torch's older ONNX tracer, which warns of itself.
    warnings.simplefilter("ignore")
    if options.verb == "kernel":
        kernel()
        return 0
    for path in options.onnx:
        if not path.is_file():
            raise UserError(f"Network {path} can't be read; an ONNX file is needed.")
    print(
        f"{options.method}, {options.threads} threads, milliseconds ({options.clock}) an image, medians of n runs in "
        "turn; auto_LiRPA with so many images together (chunk) as is fastest, on so many (of) of the images"
    )
    print(
        f"{'network':<28} {'images':>4} {'auto_LiRPA':>9} {'chunk':>5} {'of':>4} {'ours':>9} {'ratio':>7} "
        f"{'spread':>14} {'n':>5} {'mean diff':>9} {'max looser':>10} {'max tighter':>11} {'unstable':>9} "
        f"{'GFLOP/s':>8}"
    )
    counts = [int(text) for text in options.images.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        paths = list(options.onnx)
        for name in options.networks.split(",") if not paths else ():
            if name not in LAYERS:
                raise UserError(did_you_mean("network", name, LAYERS))
            for text in options.sparsities.split(","):
                file = Path(folder) / f"{name}-{100 * float(text):g}%.onnx"
                paths.append(random_network(name, float(text), file, scaled=not options.unscaled))
        for path in paths:
            clock = time.process_time if options.clock == "cpu" else time.perf_counter
            compare(path, counts, options.method, options.repeats, options.threads, options.seconds, clock)
    return 0


if __name__ == "__main__":
    run_main(main)
