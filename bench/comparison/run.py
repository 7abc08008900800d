"""Runs each side of a comparison on the same files, and measures it."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunecert.bench.comparison import loop, sides
from prunecert.bench.comparison.measure import Meter
from prunecert.bench.comparison.report import record
from prunecert.bench.comparison.request import ComparisonRequest
from prunecert.bench.machine import cores, quote
from prunecert.bench.planning import select
from prunecert.bench.results.vnncomp import Key, Task, read_instances, read_keys
from prunecert.bench.results.words import duration
from prunecert.errors import UserError
from prunecert.models.checkpoint_folders import hidden
from prunecert.onnx.io import identity

Instances = Sequence[tuple[Key, Task]]


def run_comparison(request: ComparisonRequest) -> dict[str, Any]:
    """Runs all sides, one after the other, and says so.

    Returns:
        The comparison as plain data, see `bench.comparison.report.record`.

    Raises:
        UserError: Anything about the request, or a command that failed.
    """
    chosen = request.chosen_sides()
    select.use_abcrown(request.abcrown)
    suite, limit, cascade, cells = request.protocol()
    for line in hidden(request.checkpoints, cells):
        print(line, flush=True)
    workers, out = request.workers or cores(), request.folder
    tool = loop.make_tool(request.verifier, out)
    common = _shared_options(request, cells)
    instances = _export(common, out, limit, suite)
    networks = {key.cell: identity(task.onnx) for key, task in instances}
    print(
        f"{len(instances)} instances of {len(networks)} networks, {limit:g} s each for {tool.name} {tool.version}, "
        f"{workers} processes side by side",
        flush=True,
    )
    measured_sides: list[sides.Side] = []
    wrong: list[str] = []
    for name in chosen:
        if name == "loop":
            sample = draw_sample(instances, request.loop_sample, request.seed)
            measured_sides.append(_loop(tool, sample, out / "loop", workers))
        else:
            verifiers = cascade if name == "run" else (tool.name,)
            words = [*common, "--verifiers", ",".join(verifiers), "--workers", str(workers)]
            side, inner = _run(name, verifiers, words, out, networks)
            measured_sides.append(side)
            wrong += inner
    contradictions, differences = sides.disagreements(measured_sides)
    return record(
        measured_sides,
        [*wrong, *contradictions],
        differences,
        options=request.options(),
        command=["python", "-m", "bench.compare", *request.argv],
        limit=limit,
        workers=workers,
        instances=len(instances),
        version=tool.version,
    )


def _shared_options(request: ComparisonRequest, cells: Sequence[str]) -> list[str]:
    """Returns the options that `bench.run` and `bench.export` get alike."""
    words = ["--suite", request.suite, "--profile", request.profile, "--cells", ",".join(cells)]
    words += ["--checkpoints", str(request.checkpoints)]
    for flag, value in (("--images", request.images), ("--image-seed", request.image_seed)):
        words += [] if value is None else [flag, str(value)]
    return words + ([] if request.data_root is None else ["--data-root", str(request.data_root)])


def _export(common: Sequence[str], out: Path, limit: float, suite: str) -> Instances:
    """Exports the cells and returns their instances, each with its cell and image."""
    folder = out / "exports" / suite
    command = [sys.executable, "-m", "prunecert.bench.export", *common, "--timeout", f"{limit:g}", "--out", str(folder)]
    with Meter() as meter:
        ended = meter.run(command, log=out / "export.log")
    if ended.code != 0:
        tail = (out / "export.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"Exporting failed: {' '.join(tail)} (see {out / 'export.log'})")
    return list(zip(read_keys(folder), read_instances(folder.absolute() / "instances.csv"), strict=True))


def draw_sample(instances: Instances, count: int | None, seed: int) -> Instances:
    """Returns so many instances, drawn by the seed, in their order; all if no number is named or there are no more."""
    if count is None or count >= len(instances):
        return list(instances)
    places = random.Random(seed).sample(range(len(instances)), count)  # noqa: S311 - nothing secret is drawn
    return [instances[place] for place in sorted(places)]


def _run(
    name: str, verifiers: Sequence[str], words: Sequence[str], out: Path, networks: Mapping[str, str]
) -> tuple[sides.Side, list[str]]:
    """Runs `bench.run` as one side; returns it with what contradicts itself in it."""
    target = out / name
    # A run that goes on would be measured without what is done already.
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "prunecert.bench.run", *words]
    command += ["--exports", str(out / "exports"), "--out", str(target)]
    with Meter() as meter:
        ended = meter.run(command, log=out / f"{name}.log")
    if ended.code not in (0, 1):
        raise UserError(f"{quote(command)} ended with status {ended.code}; see {out / f'{name}.log'}.")
    answers, wrong = sides.read_run(target, networks)
    what = f"prunecert run, {', '.join(verifiers)}"
    print(f"{name}: {duration(ended.seconds)}", flush=True)
    return sides.Side(name, what, command, ended.seconds, meter.peak_mb, answers, networks), wrong


def _loop(tool: loop.Tool, instances: Instances, out: Path, workers: int) -> sides.Side:
    threads = max(1, cores() // workers)
    tasks = [task for _, task in instances]
    count = 0

    def on_answer(number: int, task: Task, answer: loop.ToolAnswer) -> None:
        nonlocal count
        count += 1
        print(
            f"loop {count}/{len(tasks)}: {task.name} {answer.status} {answer.seconds:.1f} s {answer.detail}", flush=True
        )

    begin = time.perf_counter()
    with Meter() as meter:
        answers = loop.run_loop(tool, tasks, out, meter, workers=workers, threads=threads, on_answer=on_answer)
    wall_s = time.perf_counter() - begin
    findings = {
        key: sides.Finding(answer.status, round(answer.seconds, 3), tool.name, answer.detail)
        for (key, _), answer in zip(instances, answers, strict=True)
    }
    print(f"loop: {duration(wall_s)}", flush=True)
    command = tool.command(tasks[0], out / "0.txt")
    return sides.Side("loop", f"{command[0]} once an instance", command, wall_s, meter.peak_mb, findings)
