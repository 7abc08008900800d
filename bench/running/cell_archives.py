"""One tar archive a cell: what comes back from a machine that trains, cell by cell, and says of itself what it is.

    NAME.tar       archive.json   NAME.safetensors   NAME.json   NAME.history.jsonl      a cell that is trained
    STEM.work.tar  archive.json   STEM.pretrained.pt, NAME.finetune.pt, …                what is not finished yet

An archive is the same bytes whenever it is written of the same files, and it is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec

from prunecert.errors import UserError
from prunecert.files import open_regular, write_bytes
from prunecert.hashing import sha256_file
from prunecert.models.history import history_file
from prunecert.printable import shortened

if TYPE_CHECKING:
    from prunecert.models.pipeline import Job, Pipeline

SCHEMA_VERSION = 1
WORK_SUFFIX = ".work.tar"
_LABEL = "archive.json"
_LABEL_BYTES = 1 << 16
_MOST_MEMBERS = 200
#: A checkpoint of the largest network that ships has 60 MB, its training's state three times that.
_MOST_BYTES = 4 << 30
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,250}")


class _Version(msgspec.Struct):
    """What a label of any version says."""

    schema_version: int = SCHEMA_VERSION


class Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an archive says of itself.

    Args:
        kind: ``cell``, or ``work`` for what isn't finished.
        name: The cell's name; of ``work``, that of the cell in whose training it was written.
        key: The cell's key, see `models.pipeline.Pipeline.key`.
        files: SHA-256 of each file, by name.
        schema_version: Of the archive.
    """

    kind: Literal["cell", "work"]
    name: str
    key: str
    files: dict[str, str] = {}
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class CellArchive:
    """An archive that was read.

    Args:
        path: Its file.
        label: What it says of itself.
        members: Its files' contents by name.
    """

    path: Path
    label: Label
    members: Mapping[str, bytes]

    def unpack(self, folder: Path) -> None:
        """Writes the files into a folder that is there."""
        for name, data in self.members.items():
            (folder / name).write_bytes(data)


def archive_file(folder: Path, name: str) -> Path:
    """Returns where the archive of a finished cell lies."""
    return folder / f"{name}.tar"


def cell_files(folder: Path, name: str) -> list[Path]:
    """Returns the files of a cell's checkpoint that an archive has: the network, its card, its history if there is one.

    Args:
        folder: Of checkpoints.
        name: The cell's.
    """
    checkpoint = folder / f"{name}.safetensors"
    history = history_file(checkpoint)
    return [checkpoint, folder / f"{name}.json", *([history] if history.exists() else [])]


def work_files(folder: Path, stems: Sequence[str]) -> list[Path]:
    """Returns what there is of unfinished trainings: networks after pre-training, states after an epoch, histories.

    Args:
        folder: Of unfinished work, ``.work`` beside the checkpoints; it need not be there.
        stems: How the files' names begin, each before a dot; see `models.pipeline.Pipeline.stems`.
    """
    files = sorted(folder.glob("*")) if folder.is_dir() else []
    return [file for file in files if is_work(file.name, stems) and file.is_file()]


def is_work(name: str, stems: Sequence[str]) -> bool:
    """Whether a file of that name is unfinished work of one of these stems.

    >>> [is_work(name, ["cnn_s0"]) for name in ("cnn_s0.pretrained.pt", "cnn_s0.lock", "cnn_s01.pt")]
    [True, False, False]
    """
    return name.endswith((".pt", ".history.jsonl")) and any(name.startswith(f"{stem}.") for stem in stems)


def write_archive(path: Path, label: Label, files: Sequence[Path]) -> bool:
    """Writes an archive, unless the same one is there; returns whether it wrote.

    Args:
        path: The archive; its folder is made if missing.
        label: What it says of itself, but for its files.
        files: What it holds.
    """
    label = msgspec.structs.replace(label, files={file.name: sha256_file(file) for file in files})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        label_bytes = msgspec.json.encode(label)
        archive.addfile(_member(_LABEL, len(label_bytes)), io.BytesIO(label_bytes))
        for file in files:
            with file.open("rb") as stream:
                archive.addfile(_member(file.name, file.stat().st_size), stream)
    data = buffer.getvalue()
    if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)
    return True


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Returns a member's head, without times and owners."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def read_archive(path: Path) -> CellArchive:
    """Reads an archive without believing it: plain files with plain names only, no larger than it is.

    Raises:
        UserError: There is none, it is damaged or something else, or of a newer version.
    """
    with open_regular(path) as stream:
        if (size := stream.seek(0, io.SEEK_END)) > _MOST_BYTES:
            raise UserError(f"{shortened(path)} is refused: it has {size:,} bytes; at most {_MOST_BYTES:,} are read.")
        stream.seek(0)
        try:
            members = _members(stream, size)
            data = members.pop(_LABEL)[:_LABEL_BYTES]
            version = msgspec.json.decode(data, type=_Version).schema_version
            label = _label_of(data, members) if version <= SCHEMA_VERSION else None
        except (tarfile.TarError, ValueError, KeyError, EOFError, msgspec.MsgspecError) as error:
            raise UserError(
                f"{shortened(path)} is no whole archive of a cell ({shortened(error) or type(error).__name__}); it "
                "must be one that prunecert train --archives wrote: fetch it again."
            ) from error
    if label is None:
        raise UserError(
            f"{shortened(path)} has schema version {version}, newer than this program's {SCHEMA_VERSION}; "
            "update prunecert."
        )
    return CellArchive(path=path, label=label, members=members)


def _label_of(data: bytes, members: Mapping[str, bytes]) -> Label:
    """Reads a label, and holds the files to what it says: an archive that was cut off may still be one."""
    label = msgspec.json.decode(data, type=Label)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    for name in sorted({*sums, *label.files}):
        if sums.get(name) != label.files.get(name):
            raise ValueError(f"{shortened(repr(name), 100)} isn't the file that its label says")
    return label


def _members(stream: BinaryIO, size: int) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            # A sparse one may be larger than the archive.
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                raise ValueError(f"{shortened(repr(member.name), 60)} is no plain file")
            if not _NAME.fullmatch(member.name) or member.name in members or len(members) == _MOST_MEMBERS:
                raise ValueError(f"the name {shortened(repr(member.name), 60)} is refused")
            if not 0 <= member.size <= size:
                raise ValueError(f"{member.name} is cut off")
            content = archive.extractfile(member)
            data = content.read() if content is not None else b""
            if len(data) != member.size:
                raise ValueError(f"{member.name} is cut off")
            members[member.name] = data
    return members


class Archiver:
    """Writes what is finished, and what isn't when the time is up, where it can be fetched.

    Args:
        folder: Where archives go; made if missing.
        pipeline: What trains.
    """

    def __init__(self, folder: Path, pipeline: Pipeline) -> None:
        self.folder, self._pipeline = folder, pipeline

    def finish(self, job: Job, later: Sequence[Job]) -> None:
        """Writes a finished cell; and the network that it began with, if later cells begin with it, too.

        Args:
            job: The cell, whose checkpoint is there.
            later: The cells that are still to be trained.
        """
        files = cell_files(self._pipeline.folder, job.name)
        write_archive(archive_file(self.folder, job.name), self._label("cell", job), files)
        own = self._pipeline.stems(job)[0]
        if job.pretrains and any(self._pipeline.stems(other)[0] == own for other in later):
            self._write_work(own, job, work_files(self._pipeline.work, [own]))

    def interrupt(self, job: Job) -> None:
        """Writes what there is of a cell whose training stops here, so that it can go on elsewhere."""
        files = work_files(self._pipeline.work, self._pipeline.stems(job))
        history = history_file(self._pipeline.folder / job.name)
        self._write_work(job.name, job, [*files, *([history] if history.exists() else [])])

    def _write_work(self, stem: str, job: Job, files: Sequence[Path]) -> None:
        if files:
            write_archive(self.folder / f"{stem}{WORK_SUFFIX}", self._label("work", job), files)

    def _label(self, kind: Literal["cell", "work"], job: Job) -> Label:
        return Label(kind=kind, name=job.name, key=self._pipeline.key(job))
