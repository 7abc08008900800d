"""What a session row is made of: what is to be done, with what, and on which networks and images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, TypeVar

from msgspec import UNSET, Struct, UnsetType, field

from prunecert.bench.results.protocol_types import (
    TWO,
    BitSizes,
    CompactionRecord,
    DataRecord,
    Document,
    Machine,
    Missing,
    SessionStage,
    Sizes,
    SmoothingSettings,
)
from prunecert.bench.results.quantities import (
    Count,
    Images,
    Index,
    Limit,
    Name,
    Positive,
    Radius,
    Ratio,
    Seed,
    Share,
)

T = TypeVar("T", bound=Struct)


def narrowed(kind: type[T], value: T) -> T:
    """Returns an object as one of its base class: without the fields that are its own class's."""
    return kind(**{name: getattr(value, name) for name in kind.__struct_fields__})


def indices_of(images: int, indices: list[int] | None) -> Sequence[int]:
    """Returns the numbers of the images: the ones listed, or the first so many."""
    return range(images) if indices is None else indices


def present(numbers: Sequence[int], images: Iterable[int]) -> list[int]:
    """Returns which of a cell's images are among those known, in the cell's order.

    Args:
        numbers: The cell's, see `CellInfo.numbers`.
        images: Images of which there is a row.
    """
    images = set(images)
    if isinstance(numbers, range):
        # Not number by number: a file may say that there are millions.
        return sorted(number for number in images if number in numbers)
    return [number for number in numbers if number in images]


class SessionCertify(Struct, kw_only=True, omit_defaults=True):
    """How a cell is certified by randomized smoothing.

    Args:
        verifier: Its name.
        version: Its version.
        settings: All settings.
        settings_hash: Twelve digits that stand for them.
        timeout: Seconds an image.
        device: Where it runs.
        key: What a certificate row is found by.
        onnx_sha256: Hash of the network.
        images: How many.
        indices: Their numbers, or null for the first.
        trained_sigma: Standard deviation of the noise that the network was trained with, or null.
    """

    verifier: Name
    version: Name
    settings: SmoothingSettings
    settings_hash: Name
    timeout: Limit
    device: Name
    key: Name
    onnx_sha256: Name
    images: Images
    indices: list[Index] | None
    trained_sigma: Ratio | None

    @property
    def numbers(self) -> Sequence[int]:
        """The images' numbers."""
        return indices_of(self.images, self.indices)


class SessionPair(Struct, kw_only=True, omit_defaults=True):
    """What is asked of a cell's network and another one.

    Args:
        partner: The cell that it is compared with.
        step: Whether that is the one before in the chain, and not the dense one.
        alike: What is asked: ``class``, ``class:C`` or ``difference:T``.
        onnx_sha256: Hash of the file that holds both networks.
        images: How many.
        indices: Their numbers, or null for the first.
        stages: Its verifiers, in order.
        unsupported: Verifiers that do not take the pair, with the reason.
    """

    partner: Name
    step: bool
    alike: Name
    onnx_sha256: Name
    images: Images
    indices: list[Index] | None
    stages: list[SessionStage]
    unsupported: dict[Name, str]

    @property
    def numbers(self) -> Sequence[int]:
        """The images' numbers."""
        return indices_of(self.images, self.indices)


class CellInfo(Struct, kw_only=True, omit_defaults=True):
    """A cell: which network, which images.

    Args:
        name: Its name.
        network: Architecture.
        objective: What it was trained for.
        eps: Radius; for the objectives with noise its standard deviation.
        pruner: Its pruner, or ``dense``.
        compression: As asked for.
        seed: Of training and pruning.
        split: Which images.
        images: How many.
        indices: Their numbers, or null for the first.
        data_fingerprint: Hash of the split's pixels and labels.
        onnx_sha256: Hash of the network that the verifiers got.
        checkpoint_sha256: Hash of its checkpoint; empty or null without one.
        measured_sparsity: Share of zeros among the prunable weights.
        measured_compression: All prunable weights over those that are not zero.
        unsupported: Verifiers that do not take the network, with the reason.
        note: Why it is verified in another way than the rest.
        masked_sha256: Hash of the network before compaction; rows of older versions lack it, which verified that one.
    """

    name: Name
    network: Name
    objective: Name
    eps: Radius
    pruner: Name
    compression: Ratio
    seed: Seed
    split: Name
    images: Images
    indices: list[Index] | None
    data_fingerprint: Name
    onnx_sha256: Name
    checkpoint_sha256: Name | None
    measured_sparsity: Share
    measured_compression: Ratio | None
    unsupported: dict[Name, str]
    note: str
    masked_sha256: Name | UnsetType = UNSET

    @property
    def masked(self) -> str:
        """Hash of the network with its masks multiplied in, in whatever form the verifiers got it."""
        return self.onnx_sha256 if self.masked_sha256 is UNSET else self.masked_sha256

    @property
    def numbers(self) -> Sequence[int]:
        """The images' numbers."""
        return indices_of(self.images, self.indices)


class SessionCell(CellInfo, kw_only=True, omit_defaults=True):
    """A cell of a session row.

    Args:
        image_key: Network and data: what an image row is found by.
        stages: Its verifiers, in order.
        card: The checkpoint's card.
        norm: ``l2`` where the radius is one of l2 balls, or the network was trained with noise.
        compaction: What was removed from the network; null: nothing was asked to be.
        multiply_adds: Of an image, with weights that are not zero, counted in the file before compaction.
        variant: Timing suites: how the network is written.
        group: Timing suites: the networks that it is compared with.
        common: Timing suites: how many images all of them classify correctly.
        timing: Timing suites: how times are taken.
        keys: Timing suites: stage keys of all repeats, by verifier.
        batches: Timing suites: images handed over together, by verifier.
        shapes: Timing suites: what the network costs.
        certify: How it is certified, if it is.
        pairs: What is asked of it and another network.
        bits: Of its weights, where they were rounded: one number for all layers, or one for each.
        int8: Whether it is the QDQ file of int8 weights and uint8 activations.
        size: What its numbers take, in suites with rounded weights.
    """

    image_key: Name
    stages: list[SessionStage]
    card: Document | UnsetType = UNSET
    norm: Name = ""
    compaction: CompactionRecord | UnsetType | None = UNSET
    multiply_adds: Count | None = None
    variant: Name = ""
    group: Name = ""
    common: Images | None = None
    timing: Document | None = None
    keys: dict[Name, list[Name]] = field(default_factory=dict)
    batches: dict[Name, Positive] = field(default_factory=dict)
    shapes: Sizes | None = None
    certify: SessionCertify | None = None
    pairs: list[SessionPair] = field(default_factory=list)
    bits: list[Positive] = field(default_factory=list)
    int8: bool = False
    size: BitSizes | None = None

    @property
    def certified_only(self) -> bool:
        """Whether it is certified or compared, and verified by nobody: no count of verified images may have it."""
        return (self.certify is not None or bool(self.pairs)) and not self.stages and not self.unsupported


class SessionRow(Struct, tag="session", tag_field="type", kw_only=True, omit_defaults=True):
    """The first row of a file, and one at each start of `bench.run`.

    Args:
        schema_version: 1.
        writer: Name of the file's writer.
        started: UTC.
        command: What was run.
        suite: The suite.
        profile: Its profile.
        suite_digest: Hash of the resolved suite.
        description: Of the suite.
        data: Splits in use.
        versions: Of Python and of the packages that have a say.
        machine: Where.
        device: Device asked for.
        workers: Verifier processes side by side.
        threads: Threads of each.
        pid: Of the process.
        float32: How float32 is computed.
        shard: Part and number of parts, or null.
        unpublishable: Why the results must not be published; empty if they may be.
        missing: Cells without a checkpoint.
        skipped: Verifiers left out on request, with what to install.
        cells: What is to be done.
    """

    schema_version: Positive
    writer: Name
    started: Name
    command: list[str]
    suite: Name
    profile: Name
    suite_digest: Name
    description: str
    data: list[DataRecord]
    versions: dict[Name, Name]
    machine: Machine
    device: Name
    workers: Positive
    threads: Positive
    pid: Count | None = None
    float32: Name
    shard: Annotated[list[Positive], TWO] | UnsetType | None = UNSET
    unpublishable: list[str]
    missing: list[Missing]
    skipped: dict[Name, str]
    cells: list[SessionCell]

    @property
    def timed(self) -> bool:
        """Whether it is of a timing suite, so that its rows are times."""
        return any(cell.timing is not None for cell in self.cells)


class VerifySessionRow(Struct, tag="session", tag_field="type", kw_only=True, omit_defaults=True):
    """The row with which each start of `bench.verify` begins.

    Args:
        schema_version: 1.
        started: UTC.
        command: What was run.
        suite: ``bench.verify``.
        versions: As in a run's.
        machine: Where.
        device: Device asked for.
        float32: How float32 is computed.
        verifiers: Each verifier's name, version and settings.
    """

    schema_version: Positive
    started: Name
    command: list[str]
    suite: Name
    versions: dict[Name, Name]
    machine: Machine
    device: Name
    float32: Name
    verifiers: list[Document]
