"""What a baseline file is made of: a class for each of its parts, with the type and range of each field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from prunecert.bench.results.protocol_types import DataRecord, Machine, StageSettings
from prunecert.bench.results.quantities import Images, Index, Name, Positive, Seconds
from prunecert.bench.results.session_types import CellInfo
from prunecert.verifiers.base import Status

#: A verifier's answer on an image: its status, and its seconds without start-up and loading; null: it was not asked.
InstanceAnswer = tuple[Status, Seconds] | None
#: What an image begins with: its number, its label, whether it is classified correctly (1 or 0), and the question, null
#: where no verifier was asked.
InstanceHead = tuple[Index, Index, Literal[0, 1], Name | None]
#: An image: an `InstanceHead`, and an `InstanceAnswer` for each stage.
Instance = list[Any]


class HistoryCell(Struct, kw_only=True):
    """What a cell was when the baseline was made: hash of its network, and numbers of images."""

    onnx_sha256: Name
    n: Images
    verified: Images
    attacked: Images
    clean: Images


class HistoryEntry(Struct, kw_only=True):
    """One making or updating of the baseline.

    Args:
        date: UTC.
        reason: Why, in a sentence.
        run_started: When the run that was taken began.
        cells: What the cells were then.
    """

    date: Name
    reason: str
    run_started: Name
    cells: dict[Name, HistoryCell]


class Head(Struct, kw_only=True, omit_defaults=True):
    """What a run was made with, as far as a comparison needs it.

    Args:
        suite: The suite.
        profile: Its profile.
        command: What was run; in a baseline without the folders of the machine.
        started: UTC.
        data: Splits in use.
        versions: Of Python and of the packages that have a say.
        device: Device asked for.
        workers: Verifier processes side by side.
        threads: Threads of each.
        float32: How float32 is computed.
        machines: Every machine that took part.
        devices: Every device named in a verdict.
        skipped: Verifiers left out on request, with what to install.
    """

    suite: Name
    profile: Name
    command: list[str]
    started: Name
    data: list[DataRecord]
    versions: dict[Name, Name]
    device: Name
    workers: Positive
    threads: Positive
    float32: Name
    machines: list[Machine]
    devices: list[Name]
    skipped: dict[Name, str]


class BaselineCell(CellInfo, kw_only=True, omit_defaults=True):
    """A cell of a baseline.

    Args:
        stages: Its verifiers, in order.
        instances: Its images.
    """

    stages: list[StageSettings]
    instances: Annotated[list[Instance], Meta(min_length=1)]


class Baseline(Head, kw_only=True, omit_defaults=True):
    """A baseline file.

    Args:
        schema_version: 1.
        kind: ``baseline``.
        history: One entry for each time that it was made or updated.
        unpublishable: Why the run must not be published.
        cells: Cell by cell.
        digest: Hash of all the rest in canonical JSON.
    """

    schema_version: Positive
    kind: Name
    history: list[HistoryEntry]
    unpublishable: list[str]
    cells: Annotated[list[BaselineCell], Meta(min_length=1)]
    digest: Name
