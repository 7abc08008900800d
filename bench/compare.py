"""Compare `bench.run` with the loop that one writes today: the verifier's own command line, once for each instance.

Both get the same ONNX files, properties, limits, cores and number of processes. Three sides: `loop` starts NeuralSAT or
alpha-beta-CROWN once for each line of instances.csv; `run` is bench.run with the suite's cascade; `alone` is bench.run
with that verifier only, so that one sees what comes from the warm process and what from the cascade. Writes
comparison.json and comparison.md. Exit code 1 if a side proves what another breaks.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunecert.bench.comparison import loop, sides
from prunecert.bench.comparison.measure import Meter
from prunecert.bench.comparison.report import markdown, record
from prunecert.bench.machine import cores, quote
from prunecert.bench.options import IMAGES, SEED, WORKERS
from prunecert.bench.planning import select
from prunecert.bench.results.vnncomp import Key, Task, read_instances, read_keys
from prunecert.bench.results.words import duration
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError, did_you_mean, run_main
from prunecert.files import write_text
from prunecert.onnx.io import identity
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind

TOOLS = ("neuralsat", "abcrown")
SIDES = ("run", "alone", "loop")
Question = tuple[Key, Task]


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(prog="prunecert compare", description=__doc__)
    parser.add_argument("--suite", default="cifar10-4nets", help="name of a shipped suite, or a .yaml file")
    parser.add_argument("--profile", default="default", help="whose limits hold on all sides (default: default)")
    parser.add_argument("--verifier", default="neuralsat", help=f"{' or '.join(TOOLS)} (default: neuralsat)")
    parser.add_argument("--cells", help="only cells whose name fits one of these comma-separated shell patterns")
    parser.add_argument("--images", type=IMAGES, help="the first N images instead of the profile's number")
    parser.add_argument("--image-seed", type=SEED, help="draw the images with this seed instead of taking the first")
    parser.add_argument("--loop-sample", type=IMAGES, metavar="K", help="loop over K instances, and scale its time up")
    parser.add_argument("--seed", type=SEED, default=0, help="of --loop-sample (default: 0)")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"which to run, in order (default: {','.join(SIDES)})")
    parser.add_argument("--workers", type=WORKERS, help="processes side by side on every side (default: one a core)")
    parser.add_argument("--out", type=Path, help="folder to write (default: results/comparisons/SUITE-VERIFIER)")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--checkpoints", type=Path, default=select.CHECKPOINTS, help="folder of trained cells")
    parser.add_argument("--abcrown", type=Path, metavar="PATH", help="a checkout of alpha-beta-CROWN")
    return parser


def _check(options: argparse.Namespace) -> tuple[str, ...]:
    """Returns the sides asked for.

    Raises:
        UserError: An option makes no sense.
    """
    if options.verifier not in TOOLS:
        raise UserError(f"--verifier: {did_you_mean('verifier with a command line', options.verifier, TOOLS)}")
    chosen = tuple(dict.fromkeys(word.strip() for word in options.sides.split(",") if word.strip()))
    for name in chosen:
        if name not in SIDES:
            raise UserError(f"--sides: {did_you_mean('side', name, SIDES)}")
    if len(chosen) < 2:
        raise UserError(f"--sides {options.sides!r} is refused; name at least two of {', '.join(SIDES)} to compare.")
    for flag, value in (("--workers", options.workers), ("--loop-sample", options.loop_sample)):
        if value is not None and value < 1:
            raise UserError(f"{flag} {value} is refused; it must be at least 1.")
    return chosen


def _protocol(options: argparse.Namespace) -> tuple[float, list[str], str]:
    """Returns the verifier's limit, the cascade with it as its complete verifier, and the names of the cells.

    Raises:
        UserError: The suite gives the verifier no limit, or several, or no cell has a checkpoint.
    """
    suite = load_suite(options.suite, options.profile)
    cells = select.choose(suite, options.cells, None, options.images)
    cells, _ = select.find_checkpoints(suite, cells, options.checkpoints)
    # Attack-only cells are no question for a complete verifier.
    cells = tuple(pair for pair in cells if any(VERIFIERS.get(n).kind is Kind.COMPLETE for n in pair[1].cascade))
    if not cells:
        raise UserError(
            f"None of the chosen cells of suite {suite.name!r} has a checkpoint in {options.checkpoints} and is meant "
            "for complete verifiers; choose others with --cells."
        )
    limits = {protocol.timeouts.get(options.verifier) for _, protocol in cells}
    cascades = {tuple(protocol.cascade) for _, protocol in cells}
    limit = limits.pop()
    if limits or limit is None or len(cascades) > 1:
        raise UserError(
            f"The chosen cells give {options.verifier!r} no limit, or have different limits or cascades; choose cells "
            "that share them with --cells."
        )
    (cascade,) = cascades
    names = list(cascade)
    if options.verifier not in names:
        names = [name for name in names if VERIFIERS.get(name).kind is not Kind.COMPLETE] + [options.verifier]
    return limit, names, ",".join(cell.name for cell, _ in cells)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Returns:
        0, or 1 if a side proves what another breaks.

    Raises:
        UserError: Anything about the input, or a command that failed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = parser().parse_args(arguments)
    chosen = _check(options)
    select.use_abcrown(options.abcrown)
    limit, cascade, cells = _protocol(options)
    workers = options.workers or cores()
    out: Path = options.out or Path("results/comparisons") / f"{Path(options.suite).stem}-{options.verifier}"
    tool = loop.make_tool(options.verifier, out)
    common = ["--suite", options.suite, "--profile", options.profile, "--cells", cells]
    common += ["--checkpoints", str(options.checkpoints)]
    for flag, value in (("--images", options.images), ("--image-seed", options.image_seed)):
        common += [] if value is None else [flag, str(value)]
    common += [] if options.data_root is None else ["--data-root", str(options.data_root)]
    questions = _export(common, out, limit, load_suite(options.suite, options.profile).name)
    networks = {key.cell: identity(task.onnx) for key, task in questions}
    sample = _sample(questions, options.loop_sample, options.seed)
    print(
        f"{len(questions)} instances of {len(networks)} networks, {limit:g} s each for {tool.name} {tool.version}, "
        f"{workers} processes side by side",
        flush=True,
    )
    measured_sides: list[sides.Side] = []
    wrong: list[str] = []
    for name in chosen:
        if name == "loop":
            measured_sides.append(_loop(tool, sample, out / "loop", workers))
            continue
        verifiers = cascade if name == "run" else [tool.name]
        target = out / name
        # A run that goes on would be measured without what is done already.
        shutil.rmtree(target, ignore_errors=True)
        command = [sys.executable, "-m", "prunecert.bench.run", *common, "--verifiers", ",".join(verifiers)]
        command += ["--workers", str(workers), "--exports", str(out / "exports"), "--out", str(target)]
        with Meter() as meter:
            ended = meter.run(command, log=out / f"{name}.log")
        if ended.code not in (0, 1):
            raise UserError(f"{quote(command)} ended with status {ended.code}; see {out / f'{name}.log'}.")
        answers, inner = sides.read_run(target, networks)
        wrong += inner
        what = f"bench.run, {', '.join(verifiers)}"
        measured_sides.append(sides.Side(name, what, command, ended.seconds, meter.peak_mb, answers, networks))
        print(f"{name}: {duration(ended.seconds)}", flush=True)
    contradictions, differences = sides.disagreements(measured_sides)
    result = record(
        measured_sides,
        [*wrong, *contradictions],
        differences,
        options=vars(options),
        command=["python", "-m", "bench.compare", *arguments],
        limit=limit,
        workers=workers,
        instances=len(questions),
        version=tool.version,
    )
    return _write(result, out)


def _export(common: Sequence[str], out: Path, limit: float, suite: str) -> list[Question]:
    """Exports the cells and returns their instances, each with its cell and image."""
    folder = out / "exports" / suite
    command = [sys.executable, "-m", "prunecert.bench.export", *common, "--timeout", f"{limit:g}", "--out", str(folder)]
    with Meter() as meter:
        ended = meter.run(command, log=out / "export.log")
    if ended.code != 0:
        tail = (out / "export.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"Exporting failed: {' '.join(tail)} (see {out / 'export.log'})")
    return list(zip(read_keys(folder), read_instances(folder.absolute() / "instances.csv"), strict=True))


def _sample(questions: Sequence[Question], count: int | None, seed: int) -> list[Question]:
    if count is None or count >= len(questions):
        return list(questions)
    chosen = random.Random(seed).sample(range(len(questions)), count)  # noqa: S311 - nothing secret is drawn
    return [questions[number] for number in sorted(chosen)]


def _loop(tool: loop.Tool, questions: Sequence[Question], out: Path, workers: int) -> sides.Side:
    threads = max(1, cores() // workers)
    tasks = [task for _, task in questions]
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
        for (key, _), answer in zip(questions, answers, strict=True)
    }
    print(f"loop: {duration(wall_s)}", flush=True)
    command = tool.command(tasks[0], out / "0.txt")
    return sides.Side("loop", f"{command[0]} once an instance", command, wall_s, meter.peak_mb, findings)


def _write(result: dict[str, Any], out: Path) -> int:
    write_text(out / "comparison.json", json.dumps(result, indent=1) + "\n")
    with (out / "instances.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(result["rows"][0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(result["rows"])
    text = markdown(result)
    write_text(out / "comparison.md", text)
    print(text)
    for line in result["differences"]:
        print(f"decided on some sides only: {line}")
    for line in result["contradictions"]:
        print(f"CONTRADICTION: {line}")
    for name in ("comparison.md", "comparison.json", "instances.csv"):
        print(f"wrote {out / name}")
    return EXIT_REGRESSION if result["contradictions"] else EXIT_OK


if __name__ == "__main__":
    run_main(main)
