"""A run against its baseline, image by image.

An image stays verified whichever verifier proves it. Under the same weights a `sat` where the baseline says `unsat`,
or the other way round, is a contradiction: one of the two is wrong. Under other weights the first is a loss and the
second a gain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction

from prunecert.bench.gating.protocol import other_machine, version_notes
from prunecert.bench.gating.records import CellRecord, Snapshot
from prunecert.bench.gating.refusal import refuse_incomparable
from prunecert.bench.gating.result import (
    CaseState,
    CellResult,
    GateCase,
    GateResult,
    Loss,
    Metric,
    MetricChange,
    TimeRatio,
)
from prunecert.bench.results.decode import plain
from prunecert.bench.results.outcome import MISCLASSIFIED, Outcome, contradictions
from prunecert.bench.results.ratios import bootstrap_ratio_of_medians
from prunecert.bench.schema.gate import METRICS, CellLimits, RuleSet
from prunecert.printable import plural

Outcomes = Mapping[int, Outcome]
#: Fewer images than this make no median worth a ratio.
LEAST_TIMED = 5
#: Bootstrap samples; the interval's ends are then good to a few per cent of its width, and a cell takes milliseconds.
_REPEATS = 2000


def compare(
    base: Snapshot,
    run: Snapshot,
    rules: RuleSet,
    *,
    cells: Collection[str] | None = None,
    skip_unavailable: bool = False,
    any_version: bool = False,
    fail_on_time: bool = False,
) -> GateResult:
    """Compares a run with its baseline.

    Args:
        base: The baseline.
        run: The run.
        rules: What the cells are held to.
        cells: Names of the baseline's cells to look at; None for all.
        skip_unavailable: Whether the run may lack verifiers that were not installed; what they alone decided in the
            baseline is then not held.
        any_version: Whether verifiers may have other versions than in the baseline.
        fail_on_time: Whether a slower run fails rather than warns.

    Raises:
        UserError: The two can't be compared, or the run is not complete; the message says what is in the way.
    """
    names = [name for name in base.cells if cells is None or name in cells]
    skipped = refuse_incomparable(base, run, names, skip_unavailable=skip_unavailable, any_version=any_version)
    notes = [f"{name} was left out of the run ({hint}); what it decided is not held." for name, hint in skipped.items()]
    new = [name for name in run.cells if name not in base.cells]
    if new:
        notes.append(f"not gated, because the baseline has no such cell: {', '.join(new)}.")
    if idle := rules.idle(names):
        notes.append(f"rules that fit no cell compared here: {', '.join(idle)}.")
    if other := version_notes(base, run):
        notes.append(f"other versions: {'; '.join(other)}.")
    machine = other_machine(base, run)
    results = [
        _cell(
            base.cells[name],
            run.cells[name],
            rules.of(name, base.cells[name].info.network),
            skipped,
            machine,
            CaseState.FAIL if fail_on_time else CaseState.WARN,
        )
        for name in names
    ]
    keys = ("suite", "profile", "started", "command", "device")
    return GateResult(
        cells=results,
        cases=[_contradictions(run)],
        head={
            "rules": rules.source,
            "baseline": {**{key: getattr(base.head, key) for key in keys}, "history": plain(list(base.history))},
            "run": {key: getattr(run.head, key) for key in keys},
        },
        notes=notes,
    )


def _contradictions(run: Snapshot) -> GateCase:
    lines = [
        f"{c['cell']} image {c['image']}: {c['unsat_by']} proves it, {c['sat_by']} breaks it"
        for c in run.contradictions
    ]
    if lines:
        return GateCase(
            "", "contradictions", CaseState.FAIL, f"{plural(len(lines), 'contradiction')} between verifiers", lines
        )
    return GateCase("", "contradictions", CaseState.PASS, "no verifier contradicts another")


def _cell(
    base: CellRecord,
    run: CellRecord,
    limits: CellLimits,
    skipped: Mapping[str, str],
    machine: str | None,
    slow: CaseState,
) -> CellResult:
    without = frozenset(skipped)
    before, after = base.outcomes(without), run.outcomes(without)
    old_errors = base.errors()
    errors = {place: why for place, why in run.errors().items() if place not in old_errors}
    failed = {image for image, _ in errors}
    lost = [
        _change(base, image, before, after, _loss(before[image], after[image], image in failed, limits))
        for image in before
        if before[image].status == "unsat" != after[image].status
    ]
    gained = [
        _change(base, image, before, after)
        for image in before
        if after[image].status == "unsat" != before[image].status
    ]
    metrics = {name: _metric(name, before, after) for name in METRICS}
    ratio = _time(before, after) if machine is None else machine
    n = len(before)
    near = sum(change.loss is Loss.NEAR_LIMIT for change in lost)
    # Proofs near the limit are held to their budget, and not a second time to the threshold.
    doubtful = sum(change.loss is Loss.ERROR for change in lost)
    cases = [
        _flips(base, run),
        _images(base.name, lost, gained, limits, n),
        _threshold(base.name, metrics["verified"], limits, near, doubtful),
        _threshold(base.name, metrics["attacked"], limits, 0, 0),
        _threshold(base.name, metrics["clean"], limits, 0, 0),
        _sparsity(base, run, limits),
        _slower(base.name, ratio, limits, slow),
        *(_verifier(base, run, name, skipped, errors) for name in base.verifiers),
    ]
    return CellResult(
        name=base.name,
        same_network=base.network == run.network,
        limits=limits,
        metrics=metrics,
        lost=lost,
        gained=gained,
        time=ratio,
        seconds=sum(outcome.seconds for outcome in after.values()),
        cases=cases,
    )


def _loss(was: Outcome, now: Outcome, failed: bool, limits: CellLimits) -> Loss:
    if now.status in ("sat", MISCLASSIFIED):
        return Loss.BROKEN
    if failed:
        return Loss.ERROR
    return Loss.UNDECIDED if was.share < limits.strict_below else Loss.NEAR_LIMIT


def _change(base: CellRecord, image: int, before: Outcomes, after: Outcomes, loss: Loss | None = None) -> MetricChange:
    was, now = before[image], after[image]
    label = base.images[image].label
    return MetricChange(image, label, was.status, was.by, now.status, now.by, was.seconds, was.share, loss)


def _counts(name: str, outcome: Outcome) -> bool:
    if name == "verified":
        return outcome.status == "unsat"
    return outcome.status != MISCLASSIFIED and (name == "clean" or outcome.status != "sat")


def _metric(name: str, before: Outcomes, after: Outcomes) -> Metric:
    pairs = [(_counts(name, before[image]), _counts(name, after[image])) for image in before]
    return Metric(
        name,
        n=len(pairs),
        base=sum(was for was, _ in pairs),
        run=sum(now for _, now in pairs),
        lost=sum(was and not now for was, now in pairs),
        gained=sum(now and not was for was, now in pairs),
    )


def _time(before: Outcomes, after: Outcomes) -> TimeRatio | str:
    """Returns the ratio of the times to settle an image, on the images that both networks classify correctly."""
    both = [i for i in before if MISCLASSIFIED not in (before[i].status, after[i].status)]
    # Times are recorded to the microsecond, so that one of 0 is below that.
    ours = [max(before[i].seconds, 1e-6) for i in both]
    theirs = [max(after[i].seconds, 1e-6) for i in both]
    if len(both) < LEAST_TIMED:
        return f"only {len(both)} images that both classify correctly"
    ratio, low, high = bootstrap_ratio_of_medians(theirs, ours, repeats=_REPEATS)
    middle = len(both) // 2
    medians = [(sorted(times)[middle] + sorted(times)[~middle]) / 2 for times in (ours, theirs)]
    return TimeRatio(ratio, low, high, medians[0], medians[1], len(both))


def _flips(base: CellRecord, run: CellRecord) -> GateCase:
    """Finds questions that are the same, network included, and got opposite answers."""
    lines = []
    for image, record in base.images.items():
        other = run.images[image]
        if record.question is None or other.question is None:
            continue
        # The radius and the images are the same, or the cell would not be compared; a network that was compacted in one
        # of the two runs is the same one all the same.
        if record.question != other.question and base.network != run.network:
            continue
        # Within a run, or within the baseline, they are named elsewhere.
        for here, there in (("unsat", "sat"), ("sat", "unsat")):
            ours = [("", answer.status, name) for name, answer in record.answers.items() if answer.status == here]
            theirs = [("", answer.status, name) for name, answer in other.answers.items() if answer.status == there]
            for _, proved, broken in contradictions([*ours, *theirs]):
                mine, its = (proved, broken) if here == "unsat" else (broken, proved)
                lines.append(f"image {image}: {here} by {mine} in the baseline, {there} by {its} in the run")
    if lines:
        message = f"{plural(len(lines), 'question')} to the same network got opposite answers; one of the two is wrong"
        return GateCase(base.name, "contradictions", CaseState.FAIL, message, lines)
    return GateCase(base.name, "contradictions", CaseState.PASS, "run and baseline contradict each other nowhere")


def _images(cell: str, lost: list[MetricChange], gained: list[MetricChange], limits: CellLimits, n: int) -> GateCase:
    by_kind = {kind: [change for change in lost if change.loss is kind] for kind in Loss}
    budgets = {Loss.BROKEN: limits.broken, Loss.UNDECIDED: limits.undecided, Loss.NEAR_LIMIT: limits.timeouts}
    over: list[str] = []
    within: list[str] = []
    room = 0
    for kind, budget in budgets.items():
        # What a graver kind leaves of its budget serves a milder one: else an image that is broken and allowed to
        # be could fail the gate by becoming undecided.
        room += budget.allowed(n)
        count = len(by_kind[kind])
        if count:
            (over if count > room else within).append(f"{count} {_LOSS_WORDS[kind]} ({room} allowed)")
        room = max(0, room - count)
    lines = [str(change) for kind in Loss for change in by_kind[kind]]
    message = f"{plural(len(lost), 'proved image')} lost, {len(gained)} gained"
    state = CaseState.PASS
    if over or within:
        message += ": " + ", ".join([*over, *within])
    if by_kind[Loss.ERROR]:
        state = CaseState.ERROR
        message += f"; {len(by_kind[Loss.ERROR])} lost to a verifier that failed"
    if over:
        state = CaseState.FAIL
    return GateCase(cell, "images", state, message, lines)


_LOSS_WORDS = {
    Loss.BROKEN: "now sat or misclassified",
    Loss.UNDECIDED: "now undecided, proved in good time before",
    Loss.NEAR_LIMIT: "now undecided, proved near the limit before",
}


def _threshold(cell: str, metric: Metric, limits: CellLimits, excused: int, doubtful: int) -> GateCase:
    """Holds a metric to its threshold and its floor.

    Args:
        cell: The cell.
        metric: The metric.
        limits: The limits.
        excused: Lost images that don't count against the threshold.
        doubtful: Lost images of which nothing is known, because a verifier failed on them.
    """
    drop, floor = limits.drop(metric.name), limits.floor(metric.name)
    state = CaseState.PASS
    broken: list[str] = []
    for bonus, worse in ((doubtful, CaseState.FAIL), (0, CaseState.ERROR if doubtful else CaseState.FAIL)):
        broken = []
        if metric.change + Fraction(excused + bonus, metric.n) < drop:
            broken.append(f"may fall by {100 * -float(drop):g} pp")
        if floor is not None and Fraction(metric.run + bonus, metric.n) < floor:
            broken.append(f"must be at least {100 * float(floor):g} %")
        if broken:
            state = worse
            break
    message = str(metric)
    if broken:
        message += f"; it {' and '.join(broken)}"
    if state is CaseState.ERROR:
        message += f", and a verifier failed on {plural(doubtful, 'image')}"
    elif excused and not broken:
        message += f"; {excused} lost near the limit are left to their budget"
    return GateCase(cell, metric.name, state, message)


def _sparsity(base: CellRecord, run: CellRecord, limits: CellLimits) -> GateCase:
    ours, theirs = base.info.measured_sparsity, run.info.measured_sparsity
    change = f"{100 * ours:.2f} → {100 * theirs:.2f} %"
    if theirs - ours < float(limits.sparsity):
        message = f"{change}; it may fall by {100 * -float(limits.sparsity):g} pp"
        return GateCase(base.name, "sparsity", CaseState.FAIL, message)
    return GateCase(base.name, "sparsity", CaseState.PASS, change)


def _slower(cell: str, ratio: TimeRatio | str, limits: CellLimits, slow: CaseState) -> GateCase:
    if isinstance(ratio, str):
        return GateCase(cell, "time", CaseState.SKIP, f"not compared: {ratio}")
    if ratio.ratio > limits.time and ratio.low > 1:
        return GateCase(cell, "time", slow, f"{ratio}; above ×{limits.time:g}")
    return GateCase(cell, "time", CaseState.PASS, str(ratio))


def _verifier(
    base: CellRecord,
    run: CellRecord,
    name: str,
    skipped: Mapping[str, str],
    errors: Mapping[tuple[int, str], str],
) -> GateCase:
    title = f"verifier {name}"
    if name in skipped:
        return GateCase(base.name, title, CaseState.SKIP, f"{name} is not installed: {skipped[name]}")
    if name not in run.verifiers:
        return GateCase(
            base.name,
            title,
            CaseState.WARN,
            f"{name} no longer takes the network: {run.info.unsupported.get(name, 'no reason is given')}",
        )
    count = sum(name in image.answers for image in run.images.values())
    mine = {image: why for (image, verifier), why in errors.items() if verifier == name}
    if mine:
        lines = [f"image {image}: {why}" for image, why in mine.items()]
        return GateCase(
            base.name, title, CaseState.ERROR, f"{name} failed on {len(mine)} of {plural(count, 'image')}", lines
        )
    return GateCase(base.name, title, CaseState.PASS, f"{name} answered on {plural(count, 'image')}")
