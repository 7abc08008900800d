"""The loop that one writes today: the verifier's own command line, started once for each line of `instances.csv`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import yaml

from prunecert.bench.comparison import launch
from prunecert.bench.comparison.measure import Ended, Meter
from prunecert.bench.results.vnncomp import Task
from prunecert.errors import UserError
from prunecert.verifiers.base import Status

#: Seconds beyond an instance's limit that imports, reading and the way out may take.
GRACE_S = 120.0


@dataclass(frozen=True)
class ToolAnswer:
    """What the verifier's own command said.

    Args:
        status: Its word, as a status.
        detail: Why it is `error`; empty otherwise.
        seconds: The whole command, imports included.
    """

    status: Status
    detail: str
    seconds: float


class NeuralSatCommand:
    """NeuralSAT's `main.py`, with its own settings."""

    name = "neuralsat"

    def __init__(self) -> None:
        spec = importlib.util.find_spec("src")
        if spec is None or spec.origin is None or not (Path(spec.origin).parent / "main.py").is_file():
            raise UserError("NeuralSAT's main.py is not here; install it with: pip install neuralsat")
        self.folder = Path(spec.origin).parent
        self.version = importlib.metadata.version("neuralsat")

    def command(self, task: Task, result: Path) -> list[str]:
        """Returns the command line for an instance."""
        words = ["--net", str(task.onnx), "--spec", str(task.vnnlib), "--timeout", f"{task.timeout:g}"]
        return ["main.py", *words, "--device", "cpu", "--result_file", str(result)]


class AbCrownCommand:
    """alpha-beta-CROWN's `abcrown.py`, with the settings that the harness gives it.

    Args:
        config: Where its configuration file is written.
    """

    name = "abcrown"

    def __init__(self, config: Path) -> None:
        from prunecert.verifiers.adapters.abcrown import install
        from prunecert.verifiers.adapters.abcrown.configuration import DEFAULTS

        installation = install.find()
        if isinstance(installation, str):
            raise UserError(installation)
        self.folder = installation.folder
        self.version = installation.version
        self._config = config
        config.parent.mkdir(parents=True, exist_ok=True)
        settings = {**DEFAULTS, "general": {**DEFAULTS["general"], "device": "cpu"}}
        config.write_text(yaml.safe_dump(settings))

    def command(self, task: Task, result: Path) -> list[str]:
        """Returns the command line for an instance."""
        words = ["--config", str(self._config), "--onnx_path", str(task.onnx), "--vnnlib_path", str(task.vnnlib)]
        return ["abcrown.py", *words, "--results_file", str(result), "--timeout", f"{task.timeout:g}"]


Tool = NeuralSatCommand | AbCrownCommand


def make_tool(name: str, folder: Path) -> Tool:
    """Returns the command line of a verifier.

    Args:
        name: ``"neuralsat"`` or ``"abcrown"``.
        folder: For a configuration file.

    Raises:
        UserError: The verifier is not installed.
    """
    return NeuralSatCommand() if name == NeuralSatCommand.name else AbCrownCommand(folder.absolute() / "abcrown.yaml")


def read_result(path: Path, ended: Ended) -> tuple[Status, str]:
    """Reads the word that the verifier has written; one that is not known as a whole is `error`."""
    if ended.code is None:
        return Status.TIMEOUT, ""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    word = lines[0].partition(",")[0].strip() if lines else ""
    if word in ("sat", "unsat", "unknown", "timeout"):
        return Status(word), ""
    what = f"its result file says {word!r}" if word else "it wrote no result file"
    return Status.ERROR, f"{what}, exit status {ended.code}"


def run_loop(
    tool: Tool,
    tasks: Sequence[Task],
    out: Path,
    meter: Meter,
    *,
    workers: int,
    threads: int,
    on_answer: Callable[[int, Task, ToolAnswer], None],
) -> list[ToolAnswer]:
    """Starts the verifier once an instance, `workers` of them side by side.

    Args:
        tool: The verifier.
        tasks: The instances.
        out: Folder for its output and results.
        meter: Runs the commands.
        workers: How many side by side.
        threads: Threads of each.
        on_answer: Called with each answer, in the order in which they come.

    Returns:
        The answers, in the order of the tasks.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = {**dict.fromkeys(names, str(threads)), "PYTHONPATH": ""}
    out = out.absolute()

    def one(number: int) -> ToolAnswer:
        task = tasks[number]
        result = out / f"{number}.txt"
        result.unlink(missing_ok=True)
        ended = meter.run(
            [sys.executable, str(Path(launch.__file__).absolute()), *tool.command(task, result)],
            log=out / f"{number}.log",
            limit_s=task.timeout + GRACE_S,
            folder=tool.folder,
            environment=environment,
        )
        status, detail = read_result(result, ended)
        return ToolAnswer(status, detail, ended.seconds)

    out.mkdir(parents=True, exist_ok=True)
    answers: dict[int, ToolAnswer] = {}
    pool = ThreadPoolExecutor(workers)
    try:
        futures = {pool.submit(one, number): number for number in range(len(tasks))}
        for future in as_completed(futures):
            number = futures[future]
            answers[number] = future.result()
            on_answer(number, tasks[number], answers[number])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return [answers[number] for number in range(len(tasks))]
