"""Takes the archives of cells that were trained elsewhere into the checkpoints, each whole or not at all.

archive ── of this pack? ── key ── card, data ── network's hash, masks, shape ── history ──┬── checkpoint
                                                                                           └── unfinished: .work
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunecert.bench.planning import select
from prunecert.bench.running.cell_archives import CellArchive, cell_files, is_work, read_archive
from prunecert.bench.running.pack_manifest import Manifest, PackCell, read_manifest
from prunecert.errors import UserError, describe
from prunecert.files import replacing
from prunecert.hashing import sha256_file
from prunecert.models.checkpoint_folders import ZOO
from prunecert.models.history import history_file, read_history
from prunecert.printable import shortened


@dataclass(frozen=True, kw_only=True)
class UnpackRequest:
    """What is to be taken back.

    Args:
        pack: The folder that `bench.running.packing` wrote, or its manifest alone.
        archives: What was fetched: archives, or folders of them.
        out: Folder of checkpoints.
        force: Whether a checkpoint of that name that is another one is replaced.
    """

    pack: Path
    archives: Sequence[Path]
    out: Path = select.CHECKPOINTS
    force: bool = False


def take_archives(request: UnpackRequest, tell: Callable[[str], None] = print) -> None:
    """Takes what fits into the folder of checkpoints; what is there already is left alone.

    Args:
        request: What is asked for.
        tell: Takes a line for people.

    Raises:
        UserError: There is nothing to take, or some archives are refused; the others are taken.
    """
    manifest = read_manifest(request.pack)
    if manifest.unfit and request.out.resolve() == ZOO.resolve():
        raise UserError(f"This pack is refused without --out: its networks, {manifest.unfit}, are not for the zoo.")
    files = [file for place in request.archives for file in _tars(place)]
    if not files:
        raise UserError("There is no archive to take: name .tar files that run.sh wrote, or folders of them.")
    refusals = []
    for file in files:
        try:
            tell(f"{file.name}: {_take(read_archive(file), manifest, request)}")
        except (UserError, OSError) as error:
            refusals.append(f"{file.name}: {describe(error)[0]}")
    cells = [name for name in manifest.cells if (request.out / f"{name}.json").is_file()]
    missing = [name for name in manifest.cells if name not in cells]
    tell(f"{len(cells)} of {len(manifest.cells)} cells of the pack are in {request.out}.")
    if missing:
        tell(f"missing: {', '.join(missing)}")
    if refusals:
        others = "; the others are taken" if len(refusals) < len(files) else ""
        raise UserError(f"Refused: {len(refusals)} of {len(files)} archives{others}.", refusals)


def _tars(place: Path) -> Iterator[Path]:
    """Returns the archives that a path names; a file that is none is refused when it is read."""
    if place.is_dir():
        archives = sorted(place.rglob("*.tar"))
        if not archives:
            raise UserError(f"{shortened(place)} is refused: there is no .tar file in it; run.sh writes them to $OUT.")
        yield from archives
    else:
        yield place


def _take(archive: CellArchive, manifest: Manifest, request: UnpackRequest) -> str:
    """Takes one archive; returns what became of it, in a few words."""
    from prunecert.models.pipeline import exclusive

    name = archive.label.name
    cell = manifest.cells.get(name)
    if cell is None:
        raise UserError(
            f"{shortened(repr(name), 100)} is no cell of this pack; name the pack that it was trained from."
        )
    if archive.label.key != cell.key:
        raise UserError(
            f"it was trained under another key ({archive.label.key[:12]}…, not {cell.key[:12]}…): by another recipe, "
            "parent or data, or other images of them; name the pack that it is of."
        )
    request.out.mkdir(parents=True, exist_ok=True)
    with (
        # On the same disk, so that files can be moved.
        tempfile.TemporaryDirectory(prefix=".unpack.", dir=request.out) as scratch,
        exclusive(request.out / ".work" / f"{name}.lock", wait=False) as mine,
    ):
        if not mine:
            raise UserError("another process is training this cell here; wait for it, or give another --out.")
        if archive.label.kind == "work":
            return _take_work(archive, cell, request.out, Path(scratch))
        return _take_cell(archive, cell, request, Path(scratch))


def _take_cell(archive: CellArchive, cell: PackCell, request: UnpackRequest, scratch: Path) -> str:
    from prunecert.bench.report.training_figure import write_history_figure
    from prunecert.models.checkpoint import load_card, load_model

    name = archive.label.name
    checkpoint = scratch / f"{name}.safetensors"
    history = history_file(checkpoint)
    expected = {checkpoint.name, f"{name}.json"}
    if not expected <= set(archive.members) <= expected | {history.name}:
        raise UserError(f"it holds {', '.join(sorted(archive.members))}; needed are {', '.join(sorted(expected))}.")
    archive.unpack(scratch)
    _, _, card = load_model(checkpoint)
    if differing := cell.differing(card):
        raise UserError(
            f"its card is another than this pack's (different: {', '.join(differing)}); name the pack that it is of."
        )
    rows = read_history(history) if history.exists() else []
    target = request.out / f"{name}.json"
    if target.exists() and not request.force:
        if load_card(target).sha256 != card.sha256:
            raise UserError(
                f"{target} is there already, and another one; allowed are --force, which replaces it, or another --out."
            )
        network = target.with_suffix(".safetensors")
        if network.is_file() and sha256_file(network) == card.sha256:
            return "is there already"
    # The card last: a checkpoint is there when its card is.
    files = cell_files(scratch, name)
    for file in sorted(files, key=lambda file: file.suffix == ".json"):
        file.replace(request.out / file.name)
    write_history_figure(rows, name, history_file(request.out / name).with_suffix(".svg"))
    return f"taken; held-out images: {card.told()}"


def _take_work(archive: CellArchive, cell: PackCell, out: Path, scratch: Path) -> str:
    """Takes what isn't finished yet, where there is nothing that is further."""
    from prunecert.models.pipeline import exclusive

    name = archive.label.name
    history = history_file(out / name)
    unknown = [member for member in archive.members if not is_work(member, cell.stems)]
    if unknown:
        raise UserError(f"it holds {', '.join(sorted(unknown))}, which is no unfinished work of this cell.")
    archive.unpack(scratch)
    # Of a finished cell only the network that it began with is of use, to other cells.
    stems = cell.stems[:-1] if (out / f"{name}.json").exists() else cell.stems
    count = 0
    with exclusive(out / ".work" / f"{cell.stems[0]}.lock", wait=False) as mine:
        # It is this cell's own lock where it begins with no network that others share.
        if not mine and len(cell.stems) > 1:
            raise UserError("another process is pre-training this cell's network here; wait for it.")
        for member in sorted(name for name in archive.members if is_work(name, stems)):
            target = history if member == history.name else out / ".work" / member
            if _is_further(scratch / member, target):
                with replacing(target) as place:
                    shutil.copyfile(scratch / member, place)
                count += 1
    return f"unfinished, {count} of {len(archive.members)} files taken" if count else "is there already"


def _is_further(file: Path, target: Path) -> bool:
    """Whether a file of unfinished work, which is read and so checked, is further than the one that is there."""
    from prunecert.models.training import read_state

    if not file.name.endswith(".pt"):
        rows = read_history(file)
        return not target.exists() or len(rows) > len(read_history(target))
    state = read_state(file)
    # What a stage's state becomes when it is finished.
    for ending, end in ((".pretrain.pt", ".pretrained.pt"), (".pt", ".done.pt")):
        finished = target.with_name(target.name.removesuffix(ending) + end)
        if target.name.endswith(ending) and finished.exists():
            return False
    if not target.exists():
        return True
    present = read_state(target)
    # A finished stage has no epoch; a state of another key is of no use here.
    return state.get("key") != present.get("key") or state.get("epoch", 0) > present.get("epoch", 0)
