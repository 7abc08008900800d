"""One's own network, entered by a line: a suite is written for it, run, and concluded with what pruning has kept."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from prunecert.bench.results.store import Log
from prunecert.bench.results.summary import read
from prunecert.bench.running.request import RunRequest, RunResult
from prunecert.bench.running.run import run_suite
from prunecert.bench.schema.cell import show_eps
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from prunecert.files import write_text
from prunecert.models import DENSE
from prunecert.models.datasets.source import source_of
from prunecert.verifiers import VERIFIERS

#: By rising cost, as far as they are installed: bounds that also see decided images, an attack, complete verifiers.
_CASCADE = ("sparse-ibp", "sparse-crown-ibp", "pgd", "sparse-bab", "neuralsat", "abcrown")
_EVERYONE = ("sparse-ibp", "pgd")


@dataclass(frozen=True, kw_only=True)
class Addition:
    """A network and how it is to be verified.

    Args:
        network: An ONNX file, a checkpoint's file, or ``module:attribute``.
        dense: The dense network of the same kind, or empty.
        name: What to call it; empty: by its file.
        radii: In the sup norm.
        data: A data set's name, or its entry.
        images: How many, of the test split.
        verifiers: Who is asked; empty: those that are installed.
        timeout: Seconds for each verifier and image.
        out: The run's folder; the suite is written there, too.
        data_root: Folder of the data.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
    """

    network: str
    dense: str = ""
    name: str = ""
    radii: tuple[Fraction, ...]
    data: str | Mapping[str, Any] = "cifar10"
    images: int = 100
    verifiers: tuple[str, ...] = ()
    timeout: float = 20.0
    out: Path
    data_root: Path | None = None
    device: str = "cpu"


def add(addition: Addition) -> RunResult:
    """Verifies a network, and its dense one; the run's folder also gets the suite, to be changed and run again.

    Raises:
        UserError: Anything about the input; what was answered before is kept.
    """
    source_of(addition.data)
    # What was typed is refused as it was typed, not by a line of the suite that is written for it.
    for network in filter(None, (addition.network, addition.dense)):
        if _kind(network) != "module" and not Path(network).is_file():
            raise UserError(f"The network {network!r} is refused: there is no such file; its path is from here.")
    for name in addition.verifiers:
        VERIFIERS.check(name)
    addition.out.mkdir(parents=True, exist_ok=True)
    path = write_text(addition.out / "suite.yaml", yaml.safe_dump(suite_of(addition), sort_keys=False))
    suite = load_suite(str(path))
    request = RunRequest(
        suite=suite,
        named=str(path),
        out=addition.out,
        exports=addition.out / "exports",
        data_root=addition.data_root,
        device=addition.device,
    )
    return run_suite(request)


def run_folder(network: str) -> Path:
    """Returns the folder of a network's run where none is named: one for each, so that no report replaces another's.

    Example:
        >>> run_folder("nets/pruned.onnx").as_posix()
        'results/runs/added-pruned'
        >>> run_folder("mypkg.nets:make_pruned").as_posix()
        'results/runs/added-mypkg.nets-make_pruned'

    Args:
        network: Its name, an ONNX file, a checkpoint's file, or ``module:attribute``.
    """
    name = re.sub(r"\.(onnx|safetensors)$", "", network.replace("\\", "/").rsplit("/", 1)[-1])
    return Path("results/runs") / f"added-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:80].strip('-.') or 'network'}"


def suite_of(addition: Addition) -> dict[str, Any]:
    """Returns the suite that stands for an addition, as plain data.

    Raises:
        UserError: The network is of no kind that is known, or no verifier is installed.
    """
    out = addition.out
    entry = {_kind(addition.network): _from_out(addition.network, out)}
    if addition.dense:
        if _kind(addition.dense) != _kind(addition.network):
            raise UserError(f"--dense {addition.dense} is refused: it must be of the same kind as {addition.network}.")
        entry["dense"] = _from_out(addition.dense, out)
    if addition.name:
        entry["name"] = addition.name
    cascade = addition.verifiers or tuple(name for name in _CASCADE if VERIFIERS.get(name).availability().installed)
    if not cascade:
        raise UserError("No verifier is installed; `prunecert verifiers` says what each needs.")
    return {
        "schema_version": 1,
        "name": "added",
        "description": f"Added by hand: {Path(addition.network).name}",
        "data": addition.data if isinstance(addition.data, str) else dict(addition.data),
        "cells": [{"networks": [entry], "eps": [show_eps(eps) for eps in addition.radii]}],
        "verify": {
            "images": addition.images,
            "cascade": list(cascade),
            "cross_check": [name for name in cascade if name in _EVERYONE],
            "timeouts": dict.fromkeys(cascade, addition.timeout),
        },
    }


def _kind(network: str) -> str:
    if network.endswith(".onnx"):
        return "onnx"
    if network.endswith(".safetensors"):
        return "checkpoint"
    if ":" in network:
        return "module"
    raise UserError(
        f"The network {network!r} is refused; give an .onnx file, a .safetensors checkpoint, or module:attribute."
    )


def _from_out(network: str, out: Path) -> str:
    """Returns a path as the suite has it: from the run's folder, so that both may move to another machine together."""
    return network if _kind(network) == "module" else os.path.relpath(network, out)


def arrays_entry(path: Path, network: str) -> dict[str, Any]:
    """Returns the data set that an ``.npz`` file stands for: ``x_test`` and ``y_test``, of the network's classes.

    Args:
        path: The file.
        network: The network that it is for; where it is an ONNX file, it says how many classes there are, else the
            labels do.

    Raises:
        UserError: There is no such file, or it lacks an array, or holds something else.
    """
    from prunecert.models.datasets.arrays import npz

    pixels = npz("test", path=str(path))
    classes = int(pixels.labels.max(initial=1)) + 1
    if _kind(network) == "onnx" and Path(network).is_file():
        from prunecert.verifiers.formats.support import network_info

        sizes = network_info(Path(network)).sizes()
        classes = max(classes, sizes[0] or 0) if len(sizes) == 1 else classes
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", path.stem).strip("-.") or "arrays"
    shape = [int(size) for size in pixels.images.shape[1:]]
    return {"name": name, "shape": shape, "classes": classes, "reader": "npz", "options": {"path": str(path)}}


@dataclass(frozen=True)
class KeptAccuracy:
    """What pruning has kept of a dense network's verified accuracy, on the same images.

    Args:
        name: The pruned network's cell.
        eps: Radius.
        compression: As counted.
        ratio: Of the verified accuracies, and the ends of its 95 % interval.
        verified: Verified images of the pruned network and of the dense one.
        images: Of how many.
    """

    name: str
    eps: str
    compression: float
    ratio: tuple[float, float, float]
    verified: tuple[int, int]
    images: int

    def __str__(self) -> str:
        value, low, high = (100 * share for share in self.ratio)
        own, dense = self.verified
        few = "; few images, so mind the interval" if self.images < 50 else ""
        return (
            f"{self.name} at {self.eps}: {value:.0f} % of the dense network's verified accuracy is kept at "
            f"{self.compression:.3g}x ({low:.0f}–{high:.0f} %; {own} of {self.images} images, dense {dense}{few})"
        )


def kept_accuracies(out: Path) -> list[KeptAccuracy]:
    """Returns what is kept, for each pruned network of a run that has a dense one beside it.

    Networks of equal architecture, objective, radius and seed are compared, on the images that both have.

    Raises:
        UserError: There is no such run.
    """
    from prunecert.bench.results.ratios import paired_ratio

    rows = read(Log(out))
    cells = {cell.name: cell for session in rows.sessions.values() for cell in session.cells}
    verified = {name: _verified(cell, rows) for name, cell in cells.items()}
    dense = {(c.network, c.objective, c.eps, c.seed): name for name, c in cells.items() if c.pruner == DENSE}
    kept: list[KeptAccuracy] = []
    for name, cell in cells.items():
        control = dense.get((cell.network, cell.objective, cell.eps, cell.seed))
        if cell.pruner == DENSE or control is None:
            continue
        own, other = verified[name], verified[control]
        images = own.keys() & other.keys()
        both = sum(own[i] and other[i] for i in images)
        ours, theirs = sum(own[i] for i in images), sum(other[i] for i in images)
        if theirs:
            ratio = paired_ratio(both, ours - both, theirs - both)
            compression = float(cell.measured_compression or cell.compression)
            kept.append(KeptAccuracy(name, cell.eps, compression, ratio, (ours, theirs), len(images)))
    return kept


def _verified(cell: Any, rows: Any) -> dict[int, bool]:
    """Returns, for each image of a cell that is done, whether it is verified."""
    from prunecert.bench.results.outcome import settle

    correct = rows.correct.get(cell.image_key, {})
    answers = [rows.answers.get(stage.key, {}) for stage in cell.stages]
    images: Sequence[int] = [image for image in cell.numbers if image in correct]
    return {
        image: correct[image] and settle(cell.stages, [one.get(image) for one in answers]).status == "unsat"
        for image in images
    }
