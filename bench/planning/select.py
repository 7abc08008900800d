"""Everything between the command line and the first question: which verifiers, images, checkpoints and networks."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.bench.planning.exports import Calibration, Export, cell_export
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import (
    Installed,
    describe_float32_only,
    make_stages,
    other_reasons,
    supported_stages,
)
from prunecert.bench.results.protocol_types import Missing
from prunecert.bench.schema.cell import Cell, Protocol, fitting, show_eps
from prunecert.bench.schema.certificates import VERIFIER
from prunecert.bench.schema.own import OwnCell
from prunecert.bench.schema.pairs import PAIR_VERIFIER
from prunecert.bench.schema.suite import Suite
from prunecert.compaction import Mode
from prunecert.errors import UserError
from prunecert.models import checkpoint_folders
from prunecert.models.checkpoint_folders import CHECKPOINTS as CHECKPOINTS
from prunecert.models.data import Dataset, Split
from prunecert.models.datasets.source import DataSource, load_split
from prunecert.verifiers import VERIFIERS

Cells = tuple[tuple[Cell, Protocol], ...]


def choose(
    suite: Suite,
    cells: str | None,
    verifiers: str | None,
    images: int | None,
    tell: Callable[[str], None] | None = None,
) -> Cells:
    """Returns the suite's cells narrowed to what the options ask for.

    Example:
        >>> from prunecert.bench.schema.suite import load_suite
        >>> cells = choose(load_suite("cifar10-4nets"), "cnn-small_ibp_*_x100_*", "ibp,pgd", images=5)
        >>> [(cell.pruner, protocol.cascade, protocol.images) for cell, protocol in cells][0]
        ('lwm', ('ibp', 'pgd'), 5)

    Args:
        suite: The suite.
        cells: Shell patterns of cell names, comma-separated, or None for all.
        verifiers: Verifier names, comma-separated, which replace the cascade, or None.
        images: How many images, or None for the profile's number.
        tell: Takes a line about what is left out besides the cascade because none of `verifiers` does it.

    Raises:
        UserError: A pattern fits no cell, a verifier is unknown or has no time limit.
    """
    chosen = list(suite.cells)
    if cells is not None:
        fits = set(fitting([cell.name for cell, _ in chosen], cells, f"suite {suite.name!r}"))
        chosen = [(cell, p) for cell, p in chosen if cell.name in fits]
    if verifiers is not None:
        names = list(dict.fromkeys(name.strip() for name in verifiers.split(",") if name.strip()))
        if not names:
            raise UserError("--verifiers is empty; name at least one, e.g. --verifiers pgd,ibp.")
        for name in names:
            VERIFIERS.check(name)
            if name == VERIFIER and not any(protocol.certify for _, protocol in chosen):
                raise UserError(
                    f"--verifiers: suite {suite.name!r} certifies none of these cells by {name}; add 'certify' under "
                    "verify in the suite."
                )
            if name == PAIR_VERIFIER and not any(protocol.pair for _, protocol in chosen):
                raise UserError(
                    f"--verifiers: suite {suite.name!r} asks {name} about none of these cells; add 'pair: dense' under "
                    "verify in the suite."
                )
            for _, protocol in chosen:
                if name not in (VERIFIER, PAIR_VERIFIER) and protocol.cascade and name not in protocol.timeouts:
                    raise UserError(
                        f"--verifiers: suite {suite.name!r} sets no time limit for {name!r}; add one under "
                        "verify.timeouts in the suite."
                    )
        if tell is not None:
            for line in _unasked([protocol for _, protocol in chosen], names):
                tell(line)
        chosen = [(cell, protocol.only(tuple(names))) for cell, protocol in chosen]
    if images is not None:
        if images < 1:
            raise UserError(f"--images {images} is refused; it must be at least 1.")
        chosen = [(cell, protocol.first(images)) for cell, protocol in chosen]
    return tuple((cell, protocol) for cell, protocol in chosen if protocol.cascade or protocol.certify or protocol.pair)


def _unasked(protocols: Sequence[Protocol], names: Sequence[str]) -> Iterator[str]:
    """Says what else the protocols ask, beside their cascades, that none of the verifiers does."""
    pairs = [protocol.pair for protocol in protocols if protocol.pair is not None]
    if pairs and not any(name in names for pair in pairs for name in pair.verifiers):
        able = ", ".join(dict.fromkeys(name for pair in pairs for name in pair.verifiers))
        yield f"pairs are left out: --verifiers names none of those that compare them ({able}); add one to keep them."
    if VERIFIER not in names and any(protocol.certify for protocol in protocols):
        yield f"certificates are left out: --verifiers doesn't name {VERIFIER}; add it to keep them."


def check_installed(cells: Cells, device: str, skip: bool) -> tuple[Installed, dict[str, str]]:
    """Finds out which verifiers can run, before any long work.

    Returns:
        What is installed, and those left out, by name, with what to install.

    Raises:
        UserError: One is missing that the suite does not call optional and `skip` is false, none is left, or none can
            use the device.
    """
    installed = Installed(device)
    missing = installed.missing([protocol for _, protocol in cells])
    optional = {name for _, protocol in cells if protocol.timing for name in protocol.timing.optional}
    needed = {name: hint for name, hint in missing.items() if name not in optional}
    if needed and not skip:
        words = "; ".join(f"{name}: {hint}" for name, hint in needed.items())
        raise UserError(
            f"{len(needed)} of the suite's verifiers cannot run here: {words} Install what is named, choose others "
            "with --verifiers, or leave them out with --skip-unavailable."
        )
    names = {name for _, protocol in cells for name in protocol.cascade} - set(missing)
    names |= {VERIFIER for _, protocol in cells if protocol.certify}
    names |= {name for _, protocol in cells if protocol.pair for name in protocol.pair.verifiers} - set(missing)
    if not names:
        raise UserError("None of the suite's verifiers can run here: " + "; ".join(missing.values()))
    if device != "cpu" and all(installed.device_of(name) == "cpu" for name in names):
        raise UserError(f"Device {device!r} is refused: none of {', '.join(sorted(names))} can use it here.")
    return installed, missing


def load_data(
    source: DataSource, cells: Cells, root: Path | None, seed: int | None = None, *, sample: bool = True
) -> dict[str, Dataset]:
    """Loads the splits that the cells need.

    Args:
        source: The data set.
        cells: The cells.
        root: Folder that holds the data, or None to look for it.
        seed: Of the order in which the images are taken; None for the order in which they lie.
        sample: Whether the built-in sample may stand in. It may not on one of several machines, which would then
            verify other images than the rest.

    Raises:
        UserError: The seed is below 0, or no data can be had.
    """
    if seed is not None and seed < 0:
        raise UserError(f"--image-seed {seed} is refused; it must be 0 or more.")
    splits: tuple[Split, ...] = ("train", "val", "test")
    names = {protocol.split for _, protocol in cells}
    data: dict[str, Dataset] = {
        split: load_split(source, split, root, allow_sample=sample) for split in splits if split in names
    }
    return data if seed is None else {split: _shuffled(dataset, seed) for split, dataset in data.items()}


def _shuffled(data: Dataset, seed: int) -> Dataset:
    order = np.random.default_rng(seed).permutation(len(data))
    return replace(data, images=data.images[order], labels=data.labels[order], indices=data.indices[order])


def find_checkpoints(suite: Suite, cells: Cells, folder: Path) -> tuple[Cells, tuple[Missing, ...]]:
    """Splits cells into those with a checkpoint and the rest, with the command that trains each.

    Raises:
        UserError: None of the folders in which they are looked for exists.
    """
    if not any(place.is_dir() for place in checkpoint_folders.places(folder)):
        raise UserError(f"--checkpoints {folder} is refused: there is no such folder.")
    present: list[tuple[Cell, Protocol]] = []
    lacking: dict[str, Missing] = {}
    # What it trains must lie where it is looked for.
    into = "" if folder == checkpoint_folders.CHECKPOINTS else f" --out {shlex.quote(str(folder))}"
    for cell, protocol in cells:
        if isinstance(cell, OwnCell):
            # It is no checkpoint's; see `bench.planning.own`.
            continue
        trained = cell.as_trained.name
        file = checkpoint_folders.locate(folder, trained)
        if file.is_file() or file.with_suffix(".json").is_file():
            present.append((cell, protocol))
        else:
            suite_name = suite.name if suite.path.parent.name == "suites" else str(suite.path)
            command = f"prunecert train --suite {suite_name}{into} --cells {trained}"
            # One that is verified at several radii is lacking once.
            lacking[trained] = Missing(
                name=trained, command=command, family=cell.as_trained.family, member=cell.as_trained.member
            )
    return tuple(present), tuple(lacking.values())


def prepare(
    suite: Suite,
    cells: Cells,
    installed: Installed,
    data: dict[str, Dataset],
    checkpoints: Path,
    exports: Path,
    tell: Callable[[str], None],
    data_root: Path | None = None,
) -> tuple[tuple[CellPlan, ...], tuple[Missing, ...]]:
    """Exports each cell that has a checkpoint and asks each verifier whether it takes the network.

    Args:
        suite: The suite.
        cells: Its cells, narrowed.
        installed: Which verifiers there are.
        data: Images by split.
        checkpoints: Where the checkpoints lie.
        exports: Where ONNX files go.
        tell: Takes a line about what is going on.
        data_root: Folder of the data set, or None to look for it: of images on which int8 networks are calibrated.

    Returns:
        The plans, and the cells without a checkpoint with the command that trains them.

    Raises:
        UserError: A checkpoint is truncated or changed, or its card says that it is another cell's.
    """
    present, missing = find_checkpoints(suite, cells, checkpoints)
    for line in checkpoint_folders.hidden(checkpoints, (cell.as_trained.name for cell, _ in present)):
        tell(line)
    # Where weights are rounded, those that aren't have a size to be compared with, too.
    sized = any(cell.rounded for cell, _ in suite.cells)
    calibration = Calibration(lambda: load_split(suite.data, "val", data_root).images)
    plans = []
    for cell, protocol in present:
        export = export_of(suite, cell, protocol, checkpoints, exports, calibration)
        check_card(cell, export)
        stages, unsupported = supported_stages(make_stages(protocol, installed), export.path, cell.verification_norm)
        for verifier, reason in other_reasons(unsupported).items():
            # Some speak of the network alone.
            tell(f"{cell.name}: {'' if verifier in reason else f'{verifier}: '}{reason} It is left out there.")
        images = min(protocol.images, len(data[protocol.split]))
        extra = {"size": bit_sizes(export.masked_path)} if sized else {}
        plans.append(CellPlan(cell, protocol, export, stages, unsupported, data[protocol.split], images, extra=extra))
    for line in describe_float32_only({plan.name: plan.unsupported for plan in plans}):
        tell(line)
    return tuple(plans), missing


def export_of(
    suite: Suite,
    cell: Cell,
    protocol: Protocol,
    checkpoints: Path,
    exports: Path,
    calibration: Calibration | None = None,
) -> Export:
    """Returns a cell's export as `bench.planning.exports.cell_export` makes it.

    Args:
        suite: The suite, which knows where it says what doesn't fit the network.
        cell: One of its cells.
        protocol: How it is verified.
        checkpoints: Where the checkpoints lie.
        exports: Where ONNX files go.
        calibration: Images for int8 networks.

    Raises:
        UserError: The checkpoint is missing or damaged, or its weights can't be rounded so.
    """
    if not cell.bits:
        return cell_export(cell, checkpoints, exports, compact_mode(protocol), calibration)
    from prunecert.models.bits import UnfitBitsError

    try:
        return cell_export(cell, checkpoints, exports, compact_mode(protocol), calibration)
    except UnfitBitsError as error:
        raise UserError(f"{suite.bits_places[cell.name]}: {cell.name}: {error}") from error


def bit_sizes(path: Path) -> dict[str, Any]:
    """Returns what a network's numbers take, as plain data for session rows.

    Args:
        path: Its file, before compaction.
    """
    from prunecert.models.bits import count_bits
    from prunecert.models.quantise import count_numbers, is_quantised

    count = count_numbers(path) if is_quantised(path) else count_bits(path)
    return {
        "bits": [layer.bits for layer in count.layers],
        "kept": [layer.nonzero for layer in count.layers],
        "scales": count.scales,
        "others": count.others,
        "kilobytes": count.kilobytes,
        "compression": count.compression,
    }


def compact_mode(protocol: Protocol) -> Mode:
    """Returns what is removed from the networks of cells with this protocol.

    Where times are taken, compact networks are variants beside the masked ones. Where noise is added to images, they
    leave [0, 1], so that only what does nothing on any input may go.
    """
    if protocol.timing is not None:
        return Mode.OFF
    if protocol.certify is not None and protocol.compact is not Mode.OFF:
        return Mode.ALL_INPUTS
    return protocol.compact


def set_compact(cells: Cells, mode: str | None) -> Cells:
    """Returns cells with what --compact asks for, if it was given."""
    if mode is None:
        return cells
    return tuple((cell, replace(protocol, compact=Mode(mode))) for cell, protocol in cells)


def check_card(cell: Cell, export: Export) -> None:
    """Refuses a checkpoint whose card is another cell's, by whatever name its files have.

    Raises:
        UserError: It is.
    """
    trained = cell.as_trained
    expected = {key: getattr(trained, key) for key in ("network", "objective", "pruner", "compression", "seed")}
    for key, value in {**expected, "eps": show_eps(trained.eps)}.items():
        if key in export.card and export.card[key] != value:
            raise UserError(
                f"Checkpoint {cell.name}: its card says {key} {export.card[key]!r}, the suite {value!r}; "
                "the files were mixed up: restore them or train the cell again."
            )


def use_abcrown(home: Path | None) -> None:
    """Points the α,β-CROWN adapter, and the worker processes after it, at a checkout.

    Raises:
        UserError: There is no such folder.
    """
    if home is None:
        return
    if not home.is_dir():
        raise UserError(f"--abcrown {home} is refused: there is no such folder; give a checkout of alpha-beta-CROWN.")
    os.environ["ABCROWN_HOME"] = str(home.resolve())


def describe_missing(missing: Iterable[Missing]) -> list[str]:
    """Returns one line for each network, objective and radius: its cells without a checkpoint and what trains them.

    Args:
        missing: The cells; one of an older run, which does not say of which family it is, has a line of its own.
    """
    families: dict[str, list[Missing]] = {}
    for cell in missing:
        families.setdefault(cell.family or cell.name, []).append(cell)
    lines = []
    for family, cells in families.items():
        command = cells[0].command
        if len(cells) > 1:
            command = command.replace(f"--cells {cells[0].name}", f"--cells '{family}_*'")
        members = ", ".join(cell.member for cell in cells)
        lines.append(f"{family}: {members}; train with: {command}" if members else f"{family}; train with: {command}")
    return lines


def describe(plans: Sequence[CellPlan]) -> list[str]:
    """Returns one line a cell: its name, images, cascade and what compaction removed."""
    lines = []
    for plan in plans:
        if not plan.protocol.cascade:
            continue  # It is certified or compared only, and described as that.
        stages = " → ".join(f"{s.verifier}{'*' if s.everyone else ''} ({s.timeout:g} s)" for s in plan.stages)
        record = plan.export.compaction
        shrunk = f"; compact: {record.describe()}" if record is not None and record.shrank else ""
        lines.append(f"{plan.name}: {plan.images} images, {stages or 'no verifier takes this network'}{shrunk}")
    return lines
