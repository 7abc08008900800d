"""What a run's summary says of each of its cells: verified, certified by smoothing, proved, or compared in pairs."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from prunecert.bench.results.protocol_types import BitSizes, CompactionRecord
from prunecert.bench.results.quantities import (
    Amount,
    Count,
    Images,
    Name,
    Positive,
    Radius,
    Ratio,
    Seconds,
    Seed,
    Share,
)


class ShareRecord(Struct, kw_only=True):
    """A share of the images, with its Wilson interval.

    Args:
        k: How many.
        n: Of how many.
        value: Their ratio; null where there are none.
        low: Lower end of the interval.
        high: Upper end.
    """

    k: Images
    n: Images
    value: Share | None
    low: Amount
    high: Amount


class UndecidedCounts(Struct, kw_only=True):
    """Images that nobody decided, in all and by their last status."""

    total: Images
    unknown: Images = 0
    timeout: Images = 0
    memout: Images = 0
    error: Images = 0
    unsupported: Images = 0


class DecidedCounts(Struct, kw_only=True):
    """How many images a verifier was the first to decide."""

    unsat: Images
    sat: Images


class CellTime(Struct, kw_only=True):
    """Seconds of an image up to its decision, over the correctly classified ones.

    Args:
        median_s: Median.
        p90_s: 90 % quantile.
        total_s: Sum.
        images: How many.
    """

    median_s: Seconds | None
    p90_s: Seconds | None
    total_s: Amount
    images: Images


class VerifierCounts(Struct, kw_only=True):
    """What a verifier was asked and answered.

    Args:
        asked: Images.
        everyone: Whether it sees images that are decided already.
        unsat: Images that it proved; the other statuses likewise.
        timeout_s: Its limit.
        version: Its version.
        versions_seen: Versions named in its answers.
        settings_hash: Twelve digits that stand for its settings.
        device: Where it ran.
        median_s: Seconds of its answers.
        total_s: Their sum.
        median_unstable: Unstable ReLUs.
        median_domains: Domains of branch and bound.
    """

    asked: Images
    everyone: bool
    unsat: Images
    sat: Images
    unknown: Images
    timeout: Images
    memout: Images
    error: Images
    unsupported: Images
    timeout_s: Seconds
    version: Name
    versions_seen: list[Name]
    settings_hash: Name
    device: Name
    median_s: Seconds | None
    total_s: Amount
    median_unstable: Amount | None
    median_domains: Amount | None


class SummaryCell(Struct, kw_only=True):
    """A cell's numbers.

    Args:
        name: The cell; the fields up to `split` are those of the session.
        network: Architecture.
        objective: What it was trained for.
        eps: Radius.
        pruner: Its pruner, or ``dense``.
        compression: As asked for.
        seed: Of training and pruning.
        split: Which images.
        sparsity: Share of zeros among the prunable weights.
        measured_compression: All prunable weights over those that are not zero.
        onnx_sha256: Hash of the network that the verifiers got.
        masked_sha256: Hash of the network before compaction.
        compaction: What was removed, or null.
        checkpoint_sha256: Hash of its checkpoint.
        data_fingerprint: Hash of the split.
        images: Images done.
        images_asked: Images asked for.
        finished: Whether all answers are there.
        pending: Correctly classified images that still wait for one.
        clean: Correctly classified.
        verified: Correctly classified, proved by some verifier, broken by none.
        attacked: Correctly classified and broken by none; the upper bound of `verified`.
        undecided: By the last status.
        decided_by: By verifier.
        time: Seconds of an image.
        by_verifier: By verifier.
        unsupported: Verifiers that do not take the network, with the reason.
        note: Why it is verified in another way than the rest.
        size: What the network's numbers take, in suites with rounded weights.
    """

    name: Name
    network: Name
    objective: Name
    eps: Radius
    pruner: Name
    compression: Ratio
    seed: Seed
    split: Name
    sparsity: Share
    measured_compression: Ratio | None
    onnx_sha256: Name
    masked_sha256: Name | UnsetType = UNSET
    compaction: CompactionRecord | UnsetType | None = UNSET
    checkpoint_sha256: Name | None
    data_fingerprint: Name
    images: Images
    images_asked: Images
    finished: bool
    pending: Images
    clean: ShareRecord
    verified: ShareRecord
    attacked: ShareRecord
    undecided: UndecidedCounts
    decided_by: dict[Name, DecidedCounts]
    time: CellTime
    by_verifier: dict[Name, VerifierCounts]
    unsupported: dict[Name, str]
    note: str
    size: BitSizes | UnsetType = UNSET


class CertifiedShare(ShareRecord, kw_only=True):
    """The share of images that are certified at an l2 radius."""

    radius: Amount


class CertificateTime(Struct, kw_only=True):
    """Seconds of an image's certificate, and samples a second."""

    median_s: Seconds | None
    total_s: Amount
    samples_per_s: Amount | None


class CertifiedCell(Struct, kw_only=True):
    """A cell's certificates of randomized smoothing, which count nowhere as verified.

    Args:
        name: The cell; the fields up to `split` are those of the session.
        network: Architecture.
        objective: What it was trained for.
        pruner: Its pruner, or ``dense``.
        compression: As asked for.
        seed: Of training and pruning.
        split: Which images.
        sparsity: Share of zeros among the prunable weights.
        onnx_sha256: Hash of the network.
        checkpoint_sha256: Hash of its checkpoint.
        data_fingerprint: Hash of the split.
        sigma: Standard deviation of the noise.
        n0: Samples that chose the class.
        n: Samples that estimated its probability.
        alpha: Probability with which a certificate may be wrong.
        batch: Samples handed to the network together.
        noise_seed: Of the noise.
        trained_sigma: Noise of its training, or null.
        largest_radius: That of an image on which all samples agree.
        verifier: Its name.
        version: Its version.
        device: Where it ran.
        settings_hash: Twelve digits that stand for the settings.
        images: Images done.
        images_asked: Images asked for.
        finished: Whether all are there.
        clean: Images that the network itself classifies correctly.
        certified: At each radius.
        acr: Average certified radius.
        acr_error: Its standard error.
        radii: Of all certified images, falling.
        abstained: Images of which nothing is claimed.
        wrong: Images of which another class is claimed.
        failed: Failures by status.
        time: Seconds of an image.
        note: What is odd about the noise.
    """

    name: Name
    network: Name
    objective: Name
    pruner: Name
    compression: Ratio
    seed: Seed
    split: Name
    sparsity: Share
    onnx_sha256: Name
    checkpoint_sha256: Name | None
    data_fingerprint: Name
    sigma: Ratio
    n0: Positive
    n: Positive
    alpha: Share
    batch: Positive
    noise_seed: Seed
    trained_sigma: Ratio | None
    largest_radius: Amount
    verifier: Name
    version: Name
    device: Name
    settings_hash: Name
    images: Images
    images_asked: Images
    finished: bool
    clean: ShareRecord
    certified: list[CertifiedShare]
    acr: Amount | None
    acr_error: Amount | None
    radii: list[Amount]
    abstained: Images
    wrong: Images
    failed: dict[Name, Images]
    time: CertificateTime
    note: str


class ProofCounts(Struct, kw_only=True):
    """How many answers of a kind were decided, and how many of these have a certificate."""

    decided: Images
    certified: Images


class Uncertified(Struct, kw_only=True):
    """A decided image without a certificate, and why."""

    image: Count
    status: Name
    verifier: Name
    detail: str


class ProvedCell(Struct, kw_only=True):
    """A cell's certificates (``--certificates``): proofs of its answers that anybody can check.

    Args:
        name: The cell.
        unsat: Images that were proved.
        sat: Images that were broken.
        sparse: Images that a verifier of the sparse engine decided.
        size: Bytes of all certificates.
        seconds: Of finding them, beyond what the answers took.
        check_s: Of checking them before they were written.
        uncertified: Image by image.
    """

    name: Name
    unsat: ProofCounts
    sat: ProofCounts
    sparse: ProofCounts
    size: Count
    seconds: Amount
    check_s: Amount
    uncertified: list[Uncertified]


class PairTime(Struct, kw_only=True):
    """Seconds of a pair's questions, of all verifiers up to the deciding one."""

    median_s: Seconds | None
    total_s: Amount


class PairedCell(Struct, kw_only=True):
    """A pruned network and another of its chain: over how many images' boxes they are alike; none counts as verified.

    Args:
        name: The pruned network's cell.
        network: Architecture.
        objective: What it was trained for.
        eps: Radius of the boxes.
        pruner: Its pruner.
        compression: As asked for.
        seed: Of training and pruning.
        split: Which images.
        partner: The cell that it is compared with.
        step: Whether that is the one before in the chain.
        alike: What is asked.
        onnx_sha256: Hash of the file that holds both.
        images: How many were asked about.
        images_asked: How many there are to be.
        finished: Whether no answer is missing.
        pending: Images with an answer missing.
        same: Images over whose box they are proved to be alike.
        different: Images with a point at which they aren't.
        undecided: The others, by their last status.
        decided_by: By verifier.
        questions: How many images each verifier was asked about.
        failed: How often each ended in an error.
        time: Seconds of an image.
    """

    name: Name
    network: Name
    objective: Name
    eps: Name
    pruner: Name
    compression: Ratio
    seed: Seed
    split: Name
    partner: Name
    step: bool
    alike: Name
    onnx_sha256: Name
    images: Images
    images_asked: Images
    finished: bool
    pending: Images
    same: ShareRecord
    different: ShareRecord
    undecided: UndecidedCounts
    decided_by: dict[Name, DecidedCounts]
    questions: dict[Name, Images]
    failed: dict[Name, Images]
    time: PairTime
