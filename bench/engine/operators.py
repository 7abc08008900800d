"""What the engine reads of a folder of benchmarks, and what it lacks: networks are read, none is verified.

``python -m bench.engine.operators FOLDER …`` takes folders in VNN-COMP's layout: an ``instances.csv`` (or, as in 2021,
one that ends so), beside it or below the networks, gzipped or not; or folders of such. It prints three tables: by
benchmark, how many networks are taken, why the others aren't, and their operators; by all that networks lack, how many
instances that unlocks; and for each thing that is missing, how many instances it alone unlocks, and how many need it
with others. A network that isn't there counts as one that isn't stored. Properties are read only where a network has
several outputs, for the number of those they speak of.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prunecert.bench.engine.lacking import Lack, Lacking, in_few_words, lacking
from prunecert.bench.report.medium import Table
from prunecert.bench.results.vnncomp import Task, category_of, existing, read_rows
from prunecert.bench.running.pairs import unpack
from prunecert.errors import EXIT_OK, UserError, run_main
from prunecert.page_help import PageHelp
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Verifier
from prunecert.verifiers.formats.support import network_info, takes_native, unknown_operator
from prunecert.verifiers.formats.vnnlib import parse_property, read_text
from prunecert.verifiers.process.inspection import inspect_network

#: How deep lists of instances are looked for: FOLDER/benchmark/version.
_DEPTH = 2


@dataclass(frozen=True)
class BenchmarkNetwork:
    """A network of a benchmark.

    Args:
        benchmark: Its name.
        name: Of the file, as the list of instances has it.
        instances: Rows that ask about it.
        state: Whether the verifier takes it.
        operators: Of the file; empty where it isn't stored or isn't read at all.
        lacking: What it is refused for.
    """

    benchmark: str
    name: str
    instances: int
    state: Literal["taken", "refused", "not stored"]
    operators: tuple[str, ...] = ()
    lacking: Lacking = field(default_factory=lambda: Lacking(()))


def lists(folder: Path, depth: int = _DEPTH) -> list[Path]:
    """Returns the lists of instances in a folder, or in folders below where it has none.

    Raises:
        UserError: It is no folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is refused because it is no folder; allowed are folders in VNN-COMP's layout.")
    plain = folder / "instances.csv"
    if plain.is_file():
        return [plain]
    files = sorted((*folder.glob("*instances.csv"), *folder.glob("instances.csv.gz")))
    if files or depth == 0:
        return files
    return [file for inner in sorted(folder.iterdir()) if inner.is_dir() for file in lists(inner, depth - 1)]


def survey(file: Path, verifier: type[Verifier]) -> list[BenchmarkNetwork]:
    """Reads the networks of a list of instances.

    Args:
        file: The list.
        verifier: Who is to take them.

    Raises:
        UserError: The list isn't understood.
    """
    groups: dict[Path, list[Task]] = {}
    for task in read_rows(file, timeout=1.0):
        # A row may be refused for its property, which counts for nothing here; its network then is as it stands there.
        groups.setdefault(_stored(task.onnx) or task.onnx, []).append(task)
    benchmark = category_of(file.parent)
    return [_network(benchmark, path, tasks, verifier) for path, tasks in groups.items()]


def _stored(path: Path) -> Path | None:
    try:
        return existing(path, "ONNX")
    except UserError:
        return None


def _network(benchmark: str, path: Path, tasks: Sequence[Task], verifier: type[Verifier]) -> BenchmarkNetwork:
    stored = _stored(path)
    if stored is None:
        return BenchmarkNetwork(benchmark, path.name, len(tasks), "not stored")
    operators: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory() as folder:
        try:
            onnx = unpack(stored, Path(folder))
            info = network_info(onnx)
            operators = tuple(dict(info.operators))
            allowed = verifier.capabilities()
            lacks = lacking(onnx, Path(folder), allowed.operators, _outputs(tasks) if len(info.outputs) > 1 else None)
            if lacks.lacks and takes_native(info, allowed):
                lacks = Lacking(())
            elif not lacks.lacks:
                form = inspect_network(onnx, keep=allowed.operators)
                sentence = unknown_operator(verifier, form.operators, path.name)
                if sentence is not None:
                    lacks = Lacking((Lack("", in_few_words(sentence)),))
        except UserError as error:
            sentence = str(error).replace(f"Network {onnx} ", "").replace(str(onnx), path.name)
            lacks = Lacking((Lack("", in_few_words(sentence)),), whole=False)
    return BenchmarkNetwork(benchmark, path.name, len(tasks), "refused" if lacks.lacks else "taken", operators, lacks)


def _outputs(tasks: Iterable[Task]) -> int | None:
    """Returns how many outputs the first property that can be read speaks of."""
    for task in tasks:
        try:
            return parse_property(read_text(task.vnnlib, "VNN-LIB"), str(task.vnnlib), task.vnnlib).outputs
        except UserError:
            continue
    return None


def by_benchmark(networks: Sequence[BenchmarkNetwork]) -> Table:
    """Returns a line for each benchmark: instances and networks, how many are taken, why others aren't, operators."""
    rows = []
    for name in dict.fromkeys(network.benchmark for network in networks):
        mine = [network for network in networks if network.benchmark == name]
        counts = Counter(network.state for network in mine)
        instances = Counter[str]()
        for network in mine:
            instances[network.state] += network.instances
        reasons = dict.fromkeys(str(network.lacking.lacks[0]) for network in mine if network.lacking.lacks)
        operators = sorted({operator for network in mine for operator in network.operators})
        cells = [f"{counts[state]} ({instances[state]})" if counts[state] else "" for state in _STATES]
        rows.append([name, str(instances.total()), str(len(mine)), *cells, "; ".join(reasons), ", ".join(operators)])
    headings = ("instances", "networks", "taken (instances)", "refused", "not stored")
    return Table(
        [
            ("benchmark", False),
            *((heading, True) for heading in headings),
            ("first reason", False),
            ("operators", False),
        ],
        rows,
    )


_STATES: tuple[Literal["taken", "refused", "not stored"], ...] = ("taken", "refused", "not stored")


def by_network(networks: Sequence[BenchmarkNetwork]) -> Table:
    """Returns a line for all that a network, or several, lack together: the instances that this unlocks."""
    groups: dict[Lacking, list[BenchmarkNetwork]] = {}
    for network in networks:
        if network.lacking.lacks:
            key = Lacking(tuple(sorted(network.lacking.lacks, key=str)), network.lacking.whole)
            groups.setdefault(key, []).append(network)
    rows = []
    for key, mine in sorted(groups.items(), key=lambda item: -sum(network.instances for network in item[1])):
        text = ", ".join(map(str, key.lacks)) + ("" if key.whole else ", and perhaps more")
        names = ", ".join(dict.fromkeys(network.benchmark for network in mine))
        rows.append([text, str(sum(network.instances for network in mine)), str(len(mine)), names])
    return Table([("missing together", False), ("instances", True), ("networks", True), ("benchmarks", False)], rows)


def by_lack(networks: Sequence[BenchmarkNetwork]) -> Table:
    """Returns a line for each thing that is missing: instances that it unlocks alone, those that need it with others.

    A network that isn't read to its end may lack more, so that nothing is known to unlock it alone.
    """
    alone, together, places = Counter[str](), Counter[str](), dict[str, dict[str, None]]()
    for network in networks:
        lacks = [str(lack) for lack in network.lacking.lacks]
        for lack in lacks:
            counter = alone if len(lacks) == 1 and network.lacking.whole else together
            counter[lack] += network.instances
            places.setdefault(lack, {})[network.benchmark] = None
    order = sorted(places, key=lambda lack: (-alone[lack], -together[lack], lack))
    rows = [[lack, str(alone[lack]), str(together[lack]), ", ".join(places[lack])] for lack in order]
    headings = ("instances that it unlocks", "that need it with others")
    return Table([("missing", False), *((text, True) for text in headings), ("benchmarks", False)], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.engine.operators", description=__doc__.split("\n\n")[0], formatter_class=PageHelp
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="benchmarks, or folders of benchmarks")
    parser.add_argument(
        "--verifier", default="sparse-bab", metavar="NAME", help="who reads them (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    verifier = VERIFIERS.get(options.verifier)
    files = [file for folder in options.folders for file in lists(folder)]
    if not files:
        raise UserError(
            f"There is no instances.csv in {', '.join(map(str, options.folders))}, or up to {_DEPTH} folders below; "
            "give folders in VNN-COMP's layout."
        )
    networks = [network for file in files for network in survey(file, verifier)]
    tables = by_benchmark(networks), by_network(networks), by_lack(networks)
    print("\n\n".join("\n".join(part.markdown()) for part in tables))
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
