"""Networks of one's own, brought to ONNX files and counted: what a suite's entries become before they are planned."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunecert.bench.planning.exports import Export, compact_export, export_cell
from prunecert.bench.planning.select import Cells, compact_mode
from prunecert.bench.schema.cell import Cell, Protocol
from prunecert.bench.schema.own import OwnCell, OwnNetwork
from prunecert.errors import UserError
from prunecert.models.datasets.source import DataSource
from prunecert.onnx.count import count_layers, totals
from prunecert.onnx.io import identity, reason_of
from prunecert.registry import imported

Tell = Callable[[str], None]


def split_own(cells: Cells) -> tuple[Cells, tuple[tuple[OwnCell, Protocol], ...]]:
    """Splits cells into those of the registry and one's own."""
    own = tuple((cell, protocol) for cell, protocol in cells if isinstance(cell, OwnCell))
    return tuple((cell, protocol) for cell, protocol in cells if not isinstance(cell, OwnCell)), own


def prepare_own(
    cells: Sequence[tuple[OwnCell, Protocol]], data: DataSource, folder: Path, tell: Tell
) -> tuple[Cells, dict[str, Export]]:
    """Exports and counts networks of one's own, and makes them compact.

    Args:
        cells: The cells.
        data: The data set that they are for.
        folder: Where ONNX files go.
        tell: Takes a line about what is going on.

    Returns:
        The cells with the compression that was counted, and their networks by cell name.

    Raises:
        UserError: A network can't be read, imported or exported, or takes inputs of another size.
    """
    exports: dict[str, Export] = {}
    counted: list[tuple[Cell, Protocol]] = []
    files: dict[OwnNetwork, Path] = {}

    def file_of(network: OwnNetwork, name: str) -> Path:
        if network not in files:
            files[network] = _file(network, name, data, folder)
        return files[network]

    for cell, protocol in cells:
        path = file_of(cell.source, f"{cell.network}_{cell.pruner}")
        _check_shapes(path, data)
        weights, kept = totals(count_layers(path))
        whole = weights
        if cell.dense is not None:
            whole, dense_kept = totals(count_layers(file_of(cell.dense, f"{cell.network}_dense")))
            if dense_kept < kept:
                raise UserError(
                    f"{cell.name}: the dense network keeps {dense_kept:,} weights and the pruned one {kept:,}; allowed "
                    "is a dense network with at least as many: exchange the two files."
                )
            whole = max(weights, whole)
        if kept == 0:
            raise UserError(f"{cell.name}: {path.name} is refused because all its weights are zero.")
        compression = whole / kept
        card: dict[str, Any] = {"network": cell.network, "objective": cell.objective, "source": cell.source.target}
        if cell.source.kind == "checkpoint":
            # What says whether the held-out images tell of it.
            from prunecert.models.checkpoint import load_card

            origin = load_card(cell.source.path)
            card |= {"recipe": origin.recipe, "measured": origin.measured}
        export = Export(path, identity(path), 1 - kept / whole, compression, "", card)
        try:
            exports[cell.name] = compact_export(export, folder, compact_mode(protocol))
        except Exception as error:
            # Readers of foreign networks raise anything; whether it is one at all is found out when it is run.
            tell(f"{cell.name}: it is verified as it is, since it can't be made compact ({reason_of(error)})")
            exports[cell.name] = export
        counted.append((replace(cell, compression=float(f"{compression:.4g}")), protocol))
    return tuple(counted), exports


def _check_shapes(path: Path, data: DataSource) -> None:
    """Refuses a network that is another data set's, as far as its file says what it takes and returns."""
    from prunecert.verifiers.formats.support import network_info

    info = network_info(path)
    sizes = info.sizes()
    if len(sizes) == 1 and sizes[0] not in (None, data.classes):
        raise UserError(
            f"{path.name} has {sizes[0]} outputs, and the data set {data.name!r} has {data.classes} classes; name the "
            "data that it was trained on (data: in the suite, or --data)."
        )
    shape = info.sample_shape
    if 0 in shape or math.prod(shape) == math.prod(data.shape):
        channels, height, width = data.shape
        if shape == (height, width, channels) != data.shape:
            raise UserError(
                f"{path.name} takes {list(shape)}, channels last; allowed is {list(data.shape)}: `prunecert normalise "
                f"{path.name} NEW.onnx` writes such a network."
            )
        return
    raise UserError(
        f"{path.name} takes inputs of shape {list(shape)}, and the data set {data.name!r} has {list(data.shape)}; name "
        "the data that it was trained on (data: in the suite, or --data)."
    )


def _file(network: OwnNetwork, name: str, data: DataSource, folder: Path) -> Path:
    """Returns a network's ONNX file, made now where there is none."""
    if network.kind == "onnx":
        return network.path
    folder.mkdir(parents=True, exist_ok=True)
    if network.kind == "checkpoint":
        return export_cell(network.path, folder).path
    import torch

    from prunecert.bench.planning.module_export import export_module

    module = module_of(network.target)
    target = folder / f"{name.replace(' ', '-')}.onnx"
    sample = torch.full((1, *data.shape), 0.5)
    return export_module(module.eval(), target, sample).path


def module_of(target: str) -> Any:
    """Returns the module that ``module:attribute`` stands for, called if it is a function or a class that makes one.

    The current folder is searched, too.

    Raises:
        UserError: It can't be imported, or makes no `torch.nn.Module`.
    """
    from torch import nn

    value: Any = imported(target, "network")
    try:
        network = value if isinstance(value, nn.Module) else value()
    except (Exception, SystemExit) as error:
        # Whatever foreign code raises; also where it means to end the program, which would look like a pass.
        raise UserError(
            f"The network {target!r} can't be made ({type(error).__name__}: {error}); name a module, or a function "
            "without arguments that returns one."
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{target!r} makes a {type(network).__name__}; it must make a torch.nn.Module.")
    return network
