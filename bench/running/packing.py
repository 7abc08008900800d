"""Packs all that a training needs into one folder, for a machine that is rented by the hour and has nothing.

    run.sh           trains the cells, the most telling first, until the budget is spent; goes on where it stopped
    pack.json        what the cells' checkpoints must say, for the way back
    code.tar.gz      this package, without the shipped checkpoints
    SUITE.yaml       the suite, unless it ships with the package
    data.packed      images and labels (`models.datasets.packed`)
    start/           parents, and trainings that have begun here
    wheels/          Python packages that the machine lacks
    SHA256SUMS       of all of them

What is larger than a piece lies there in pieces, which run.sh joins.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import prunecert
from prunecert.bench.planning import select
from prunecert.bench.running.cell_archives import work_files
from prunecert.bench.running.pack_manifest import Manifest, PackCell, expected_card, write_manifest
from prunecert.bench.running.pack_script import SUMS, script
from prunecert.bench.running.training import by_value, is_done, plan, refuse
from prunecert.bench.running.training_cells import TrainingRequest
from prunecert.bench.schema.suite import SUITES
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models.datasets import DATASETS
from prunecert.models.history import history_file
from prunecert.registry import PLUGINS

if TYPE_CHECKING:
    from prunecert.models.data import Dataset
    from prunecert.models.pipeline import Job, Pipeline

MEGABYTE = 1_000_000
#: Of the package, what isn't code.
_LEFT_OUT = ("__pycache__", "checkpoints")
_BUDGET = "1h"


@dataclass(frozen=True, kw_only=True)
class PackRequest:
    """What is to be packed.

    Args:
        training: What the other machine is to train. Its `out` is the folder here: what is trained there already is
            left out, and parents and trainings that have begun are taken from it. Its deadline and device are what
            run.sh takes unless it is told otherwise.
        folder: Where the pack goes; new or empty.
        limit: Bytes that the pack may have, or None.
        piece: Bytes that a file of it may have, or None.
        wheels: Folder of Python packages to go with it, or None.
    """

    training: TrainingRequest
    folder: Path
    limit: int | None = None
    piece: int | None = None
    wheels: Path | None = None


def write_pack(request: PackRequest, tell: Callable[[str], None] = print) -> Manifest | None:
    """Writes a pack; it is there whole or not at all.

    Args:
        request: What is asked for.
        tell: Takes a line for people.

    Returns:
        What it says of itself; None where there is nothing to train.

    Raises:
        UserError: Anything that training would refuse before it begins; the folder isn't empty; or the pack would be
            larger than its limit.
    """
    training = request.training
    _refuse_folder(request.folder)
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", training.device):
        raise UserError(f"--device {training.device!r} is refused; allowed are cpu, cuda and cuda:N.")
    jobs = by_value(plan(training.suite, training.cells, training.named))
    todo = [job for job in jobs if training.force or not _is_done(training, job)]
    tell(f"{len(jobs)} cells, {len(jobs) - len(todo)} trained already, {len(todo)} to pack.")
    if not todo:
        tell("Nothing is written; --force packs cells that are trained already, too.")
        return None
    wheels = _wheels(request.wheels)
    _refuse_reader(training)
    parents = {parent for job in todo if (parent := refuse(job, training.out)) is not None}
    if os.environ.get(PLUGINS):
        tell(f"plug-ins aren't packed: bring {os.environ[PLUGINS]} yourself, and set {PLUGINS} there.")
    request.folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, so that it can be moved.
    with tempfile.TemporaryDirectory(prefix=f".{request.folder.name}.", dir=request.folder.parent) as scratch:
        pack = Path(scratch) / "pack"
        pack.mkdir()
        manifest = _fill(pack, request, todo, parents, wheels, tell)
        sizes = _sizes(pack)
        size = sum(sizes.values())
        parts = ", ".join(f"{name} {_megabytes(part)}" for name, part in sizes.items())
        tell(f"The pack has {_megabytes(size)}: {parts}.")
        if request.limit is not None and size > request.limit:
            raise UserError(
                f"The pack is refused: it has {_megabytes(size)}, and --limit allows {_megabytes(request.limit)}; "
                "allowed are a higher limit, perhaps with --piece, or a --subset to try things out."
            )
        _write_sums(pack, request)
        if request.folder.exists():
            request.folder.rmdir()
        pack.rename(request.folder)
    tell(
        f"Bring {request.folder} to the machine and run there: OUT=results bash run.sh; fetch what comes, and take it: "
        f"prunecert unpack --pack {shlex.quote(str(request.folder))} results{_where(training)}"
    )
    return manifest


def _where(training: TrainingRequest) -> str:
    """Returns the option that says where checkpoints go, where it has to be given."""
    usual = training.out.resolve() == select.CHECKPOINTS.resolve()
    if usual and training.unfit:
        # What was made to try things out is not for the zoo.
        return " --out FOLDER"
    return "" if usual else f" --out {shlex.quote(str(training.out))}"


def _refuse_folder(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {str(folder)!r} is refused: it is there already; name a new or an empty folder.")


def _is_done(training: TrainingRequest, job: Job) -> bool:
    # What is trained on a few images to try things out has nothing to do with the checkpoints that are there.
    return training.subset is None and is_done(training.out, job)


def _refuse_reader(training: TrainingRequest) -> None:
    reader = training.suite.data.reader
    if ":" in reader:
        raise UserError(
            f"Suite {training.suite.name!r} is refused: its data are read by {reader!r}, which would be missing there; "
            f"allowed are {', '.join(DATASETS)}."
        )


def _fill(
    pack: Path,
    request: PackRequest,
    todo: list[Job],
    parents: set[Path],
    wheels: Sequence[Path],
    tell: Callable[[str], None],
) -> Manifest:
    """Writes everything but pieces and checksums."""
    from prunecert.models.data import first_images
    from prunecert.models.datasets.packed import write_packed
    from prunecert.models.datasets.source import load_split
    from prunecert.models.pipeline import Pipeline

    training = request.training
    data = training.suite.data
    train, val = (first_images(load_split(data, s, training.data_root), training.subset) for s in ("train", "val"))
    tell(f"Packing {len(train):,} training images and {len(val):,} held-out ones.")
    write_packed((train, val), pack / "data.packed")
    pipeline = Pipeline(
        training.out,
        training.out / ".work",
        train,
        val,
        "cpu",
        lambda _: None,
        unfit=training.unfit,
        subset=training.subset,
    )
    (pack / "code.tar.gz").write_bytes(code_archive())
    shipped = training.suite.path.resolve().parent == SUITES.resolve()
    if not shipped:
        shutil.copyfile(training.suite.path, pack / training.suite.path.name)
    _copy_start(pack / "start", parents, pipeline, todo)
    for wheel in wheels:
        (pack / "wheels").mkdir(exist_ok=True)
        shutil.copyfile(wheel, pack / "wheels" / wheel.name)
    manifest = _manifest(training, todo, train, val, pipeline)
    write_manifest(manifest, pack)
    file = pack / "run.sh"
    file.write_text(
        script(
            suite=training.suite.name if shipped else training.suite.path.name,
            cells=list(manifest.cells),
            subset=training.subset,
            budget=training.deadline.text or _BUDGET,
            device=training.device,
            code=sha256_file(pack / "code.tar.gz")[:12],
        ),
        encoding="utf-8",
    )
    file.chmod(0o755)
    return manifest


def _manifest(training: TrainingRequest, todo: list[Job], train: Dataset, val: Dataset, pipeline: Pipeline) -> Manifest:
    return Manifest(
        suite=training.suite.name,
        cells={
            job.name: PackCell(
                key=pipeline.key(job),
                stems=pipeline.stems(job),
                card=expected_card(job, train.fingerprint, training.unfit),
            )
            for job in todo
        },
        images={"train": len(train), "val": len(val)},
        fingerprint=train.fingerprint,
        unfit=training.unfit,
        prunecert=prunecert.__version__,
    )


def code_archive() -> bytes:
    """Returns this package as a tar archive in gzip: the same bytes of the same files, whoever packs them."""
    package = Path(prunecert.__file__).parent
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=6, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for file in sorted(_code_files(package)):
            member = tarfile.TarInfo(f"{package.name}/{file.relative_to(package).as_posix()}")
            member.size = file.stat().st_size
            with file.open("rb") as content:
                archive.addfile(member, content)
    return buffer.getvalue()


def _code_files(package: Path) -> Iterator[Path]:
    # In a checkout the folders of the package are links.
    for folder, names, files in os.walk(package, followlinks=True):
        names[:] = [name for name in names if name not in _LEFT_OUT]
        yield from (Path(folder) / name for name in files if not name.startswith("."))


def _copy_start(folder: Path, parents: set[Path], pipeline: Pipeline, todo: list[Job]) -> None:
    """Copies what the other machine's folder of checkpoints begins with."""
    for network in sorted(parents):
        folder.mkdir(exist_ok=True)
        for file in (network, network.with_suffix(".json")):
            shutil.copyfile(file, folder / file.name)
    for job in todo:
        files = work_files(pipeline.work, pipeline.stems(job))
        for file in files:
            (folder / ".work").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / ".work" / file.name)
        history = history_file(pipeline.folder / job.name)
        if files and history.exists():
            shutil.copyfile(history, folder / history.name)


def _wheels(folder: Path | None) -> list[Path]:
    if folder is None:
        return []
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise UserError(f"--wheels {str(folder)!r} is refused: there is no .whl file in it; pip download makes them.")
    return wheels


def _sizes(pack: Path) -> dict[str, int]:
    """Returns the bytes of each file, or folder, of the pack, the largest first."""
    sizes = {}
    for place in pack.iterdir():
        files = [file for file in (place, *place.rglob("*")) if file.is_file()]
        sizes[place.name] = sum(file.stat().st_size for file in files)
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:,.1f} MB" if size >= MEGABYTE / 10 else f"{size / 1000:,.1f} kB"


def _write_sums(pack: Path, request: PackRequest) -> None:
    """Writes what sha256sum checks, of whole files, and then cuts those that are larger than a piece."""
    files = sorted(file for file in pack.rglob("*") if file.is_file())
    sums = [f"{sha256_file(file)}  {file.relative_to(pack).as_posix()}\n" for file in files]
    (pack / SUMS).write_text("".join(sums), encoding="utf-8")
    for file in files:
        if request.piece is not None and file.stat().st_size > request.piece:
            _cut(file, request.piece)


def _cut(file: Path, size: int) -> None:
    with file.open("rb") as stream:
        for number, data in enumerate(iter(lambda: stream.read(size), b"")):
            file.with_name(f"{file.name}.piece{number:03}").write_bytes(data)
    file.unlink()
