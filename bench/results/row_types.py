"""What a row of the result log is: a class a kind, with the type and range of each field.

`bench.results.store` decodes every line into one of these, so that nobody behind it has to ask what a field holds. A
field that is not known here is left out of account, so that a newer writer may add one; a field of another type is
refused with file, line and name.

A field without a default is always written, null included. One whose default is None or empty is left out where it
says nothing, and old rows may lack it. `msgspec.UNSET` stands for "not written at all" where null says something else.
"""

from __future__ import annotations

from msgspec import Struct

from prunecert.bench.results.protocol_types import Document
from prunecert.bench.results.quantities import Amount, Count, Index, Limit, Name, Positive, Ratio, Seconds, Share
from prunecert.bench.results.session_types import SessionRow, VerifySessionRow
from prunecert.verifiers.base import Status


class ImageRow(Struct, tag="image", tag_field="type", kw_only=True, omit_defaults=True, gc=False):
    """An image, and what the exported network predicts on it in onnxruntime.

    Args:
        key: Network and data.
        cell: The cell.
        image: Its number in the split.
        label: Its class.
        predicted: The class of the largest logit.
        correct: Whether the label's logit is above all others.
    """

    key: str
    cell: str
    image: Index
    label: Index
    predicted: Index
    correct: bool


class PhaseTimes(Struct, kw_only=True, omit_defaults=True, gc=False):
    """Seconds by phase; what is 0 is left out. See `verifiers.base.Times`.

    Args:
        start_s: Starting the worker process.
        load_s: Reading the network.
        bound_s: Bounding, or an attack.
        search_s: Branch and bound.
        wall_s: Everything but `start_s`, with `load_s`.
    """

    start_s: Seconds = 0.0
    load_s: Seconds = 0.0
    bound_s: Seconds = 0.0
    search_s: Seconds = 0.0
    wall_s: Seconds = 0.0


#: The replay of a claimed counterexample, see `verifiers.formats.counterexample.WitnessCheck`; infinite numbers are
#: text.
ReplayRecord = dict[str, bool | int | float | str | list[float | str] | None]


class ReusedFrom(Struct, kw_only=True, omit_defaults=True, gc=False):
    """The earlier answer that a row takes over (``--reuse``).

    Args:
        run: Folder of the earlier run.
        started: When it began.
        id: The answer's instance.
        eps: Its radius, if that is another one.
    """

    run: str
    started: str
    id: str
    eps: str | None = None


class Answered(Struct, kw_only=True, omit_defaults=True, gc=False):
    """What rows of all verifiers' answers share.

    Args:
        id: Hash of instance, verifier, version and settings.
        timeout: Seconds an instance.
        status: The answer.
        detail: Why, in one sentence.
        times: Seconds by phase.
        stage: What decided: ``attack``, ``incomplete`` or ``bab``.
        unstable: ReLUs that the bounds leave unstable.
        domains: Domains of branch and bound.
        iterations: Its iterations.
        bounds: Certified lower bounds, one for each way to be unsafe; null where they are not finite.
        peak_memory_mb: MiB of the worker.
        batch: How many instances were handed over together; each has its share of the time.
        device: ``cpu`` or ``cuda:N (name)``.
        verifier: Its name.
        version: Its version.
        witness_check: The replay of a claimed counterexample.
        log_tail: The end of the verifier's output, for `error` and `memout`.
    """

    id: str
    timeout: Limit
    status: Status
    detail: str = ""
    bounds: list[float | None] | None = None
    times: PhaseTimes | None = None
    stage: str = ""
    unstable: Count | None = None
    domains: Count | None = None
    iterations: Count | None = None
    peak_memory_mb: Amount | None = None
    batch: Positive | None = None
    device: str = ""
    verifier: str
    version: str
    witness_check: ReplayRecord | None = None
    log_tail: str = ""


class VerdictRow(Answered, tag="verdict", tag_field="type", kw_only=True, omit_defaults=True, gc=False):
    """A verifier's answer on an image.

    Args:
        question: Hash of the instance without its limit; different answers to one question are a contradiction.
        key: Network, data, radius, verifier, version, settings, limit.
        cell: The cell.
        repeat: Timing suites: which of several times that the same is asked, from 1.
        image: The image's number in the split.
        label: Its class.
        settings: The first digits of the settings' hash.
        witness: Path of the counterexample below the run.
        start: Instance whose counterexample an attack began at (``--warm-start``).
        reused: Where the answer was taken over from (``--reuse``).
    """

    question: str
    key: str
    cell: str
    repeat: Positive | None = None
    image: Index
    label: Index
    settings: str
    witness: str = ""
    start: str = ""
    reused: ReusedFrom | None = None


class CertificateFields(Struct, kw_only=True, omit_defaults=True, gc=False):
    """What smoothing found at an image; see `verifiers.certificate.Certificate`."""

    predicted: Index
    count: Count
    n0: Positive
    n: Positive
    alpha: Share
    sigma: Ratio
    p_lower: Share
    radius: Amount


class CertificateRow(Answered, tag="certificate", tag_field="type", kw_only=True, omit_defaults=True, gc=False):
    """A probabilistic verifier's certificate on an image; never a verdict.

    Args:
        key: What it is found by.
        cell: The cell.
        image: The image's number in the split.
        label: Its class.
        settings: The first digits of the settings' hash.
        certificate: What was found; it abstains where `p_lower` is at most 1/2. None after a failure.
    """

    key: str
    cell: str
    image: Index
    label: Index
    settings: str
    certificate: CertificateFields | None = None


class ProofRow(Struct, tag="proof", tag_field="type", kw_only=True, omit_defaults=True, gc=False):
    """A decided answer's certificate (``--certificates``), or why there is none; the latest row of an answer counts.

    Args:
        question: Of the answer, see `VerdictRow`.
        key: Likewise.
        cell: The cell.
        image: The image's number in the split.
        status: The answer: `unsat` or `sat`.
        verifier: Whose answer it is.
        sha256: The file is ``certificates/<sha256>.cert``; missing where there is none.
        size: Its bytes.
        how: ``intervals``, ``crown-ibp``, ``crown``, ``bab`` (neurons split), ``boxes`` (inputs cut) or ``witness``.
        leaves: Of all its trees.
        seconds: Of finding it, a search included where one was needed.
        check_s: Of checking it before it was written.
        detail: Why there is none.
    """

    question: str
    key: str
    cell: str
    image: Index
    status: Status
    verifier: str
    sha256: str = ""
    size: Count | None = None
    how: str = ""
    leaves: Count | None = None
    seconds: Seconds = 0.0
    check_s: Seconds = 0.0
    detail: str = ""


class PairRow(Answered, tag="pair", tag_field="type", kw_only=True, omit_defaults=True, gc=False):
    """A verifier's answer on a pair of networks over an image's box; never a verdict on one of them.

    Args:
        question: Hash of the instance without its limit; different answers to one question are a contradiction.
        key: What it is found by.
        cell: The pruned network's cell.
        partner: The cell that it is compared with.
        alike: What was asked: ``class``, ``class:C`` or ``difference:T`` (docs/pairs.md).
        image: The image's number in the split.
        settings: The first digits of the settings' hash.
        witness: Path, below the run, of a point at which the two are not alike.
    """

    question: str
    key: str
    cell: str
    partner: str
    alike: str
    image: Index
    settings: str
    witness: str = ""


class PropertyRow(Answered, tag="property", tag_field="type", kw_only=True, omit_defaults=True):
    """A verifier's answer on a property file (`bench.verify`).

    Args:
        problem: Hash of network and property; different answers to it are a contradiction.
        category: Of the counterexample's file.
        onnx: The network's file.
        onnx_sha256: Its hash.
        vnnlib: The property's file.
        vnnlib_sha256: Its hash.
        settings: All settings of the verifier.
        compaction: What was removed from the network, if that was asked for.
        counterexample: Path below the results, or null.
    """

    problem: str
    category: str
    onnx: str
    onnx_sha256: str
    vnnlib: str
    vnnlib_sha256: str
    settings: Document
    # A row of a list that can't be read has whatever limit was written there.
    timeout: Seconds
    compaction: Document | None = None
    counterexample: str | None = None
    verifier: str = ""
    version: str = ""


class VisitRow(Struct, tag="visit", tag_field="type", kw_only=True, omit_defaults=True, gc=False):
    """Timing suites: a network was loaded, and a question asked that does not count.

    Args:
        cell: The cell.
        verifier: The verifier.
        repeat: Which repeat.
        image: Number of the first image.
        start_s: Seconds of starting the process.
        load_s: Seconds of loading the network.
        warm_s: Seconds of the question.
        load_average: Of the machine.
    """

    cell: str
    verifier: str
    repeat: Positive
    image: Index
    start_s: Seconds
    load_s: Seconds
    warm_s: Seconds
    load_average: Amount


class EndRow(Struct, tag="end", tag_field="type", kw_only=True, omit_defaults=True, gc=False):
    """The writer came to its end; a session without one was stopped.

    Args:
        writer: Its name.
        ended: UTC.
        seconds: Since the session began.
    """

    writer: Name
    ended: Name
    seconds: Seconds


Row = (
    SessionRow
    | VerifySessionRow
    | ImageRow
    | VerdictRow
    | CertificateRow
    | ProofRow
    | PairRow
    | PropertyRow
    | VisitRow
    | EndRow
)
#: All kinds, in the order in which `results/README.md` tells of them.
KINDS: tuple[type[Struct], ...] = (
    SessionRow,
    VerifySessionRow,
    ImageRow,
    VerdictRow,
    CertificateRow,
    ProofRow,
    PairRow,
    PropertyRow,
    VisitRow,
    EndRow,
)
