"""Checks a certificate against a network and a property; `docs/certificates.md` has the format and what is believed."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .bounds import Bounds
from .files import RefusedError, Stream, UnreadableError, need, read
from .network import read_network
from .nodes import Network, dense
from .parabolas import LARGEST_ROWS, CurvedChoice, Forms
from .vnnlibfile import Case, read_property
from .witness import evaluated

LEAF, SPLIT, CUT, BOUNDS, PARABOLAS = range(5)
#: Splits above a leaf; bounds within bounds; bytes of a property's text; numbers in an array of a walk.
LARGEST_DEPTH, LARGEST_NESTING, LARGEST_TEXT, _LARGEST_BATCH = 1000, 32, 2**27, 2**19
#: Parts whose functions are kept, for leaves that share them.
_KEPT = 16
#: How slopes are stored, and what 1 is.
_SLOPES = {1: ("u1", 255.0), 2: ("<u2", 65535.0), 4: ("<f4", np.float64(1.0))}


class Report(NamedTuple):
    """What was checked: the answer, leaves and `lowest`; of `sat` the witness and how it was evaluated.

    Each output may err by less than `lowest` without breaking the property: it is the least bound of a leaf over the
    sum of the magnitudes that its combination of rows gives the outputs.
    """

    answer: str
    leaves: int
    lowest: float
    how: str
    witness: Any = None

    def describe(self) -> str:
        """Returns the report as one line."""
        sat = f"the witness is unsafe in real arithmetic (evaluated {self.how})"
        unsat = f"{self.leaves} leaves, outputs may err by {self.lowest:.4g}" if self.leaves else "of no input at all"
        return f"{self.answer}, checked: {sat if self.answer == 'sat' else unsat}"


class Region(NamedTuple):
    """A part of a case's box: inputs in [low, high], and splits (node, neuron, sign) of neurons, topmost first."""

    bounds: Any
    low: Any
    high: Any
    splits: tuple[tuple[int, int, int], ...] = ()
    depth: int = 0
    nesting: int = 0


class Tree:
    """Reads and checks the trees of one case: a region is done if every part of it is, however it was divided."""

    def __init__(self, file: Stream, network: Network, case: Case) -> None:
        self._file, self._sites, self._case = file, network.sites, case
        #: The rows of the unsafe sets follow the network as a matrix: s = rows @ y - limits.
        self.nodes = [*network.nodes, dense(network.output, case.rows, -case.limits)]
        self._batch = max(1, min(256, _LARGEST_BATCH // max(node.size for node in self.nodes)))
        self.root = self._bounded(Region(None, case.lower, case.upper))
        self.leaves, self.lowest = 0, np.inf
        self._forms: dict[tuple[Any, ...], tuple[Bounds, Forms]] = {}

    def _slopes(self, count: int, width: int) -> Any:
        kind = int(self._file.take("u1")[0])
        if not kind:
            return None
        need(kind in _SLOPES, f"the certificate has slopes of kind {kind}")
        dtype, one = _SLOPES[kind]
        slopes = self._file.take(dtype, count * width).reshape(count, width) / one
        need(((slopes >= 0) & (slopes <= 1)).all(), "the certificate has a slope outside [0, 1]")
        return slopes

    def _neurons(self, size: int) -> Any:
        index = self._file.take("<u4", int(self._file.take("<u4")[0]))
        need(len(index) <= size and (index < size).all(), "the certificate names a neuron that is not there")
        return index

    def _bounded(self, region: Region) -> Region:
        """Bounds all nodes over a region, as the file says: what holds over a region holds over its parts.

        Bounds round a region may be narrowed by its splits, as it lies within them; so may the box, and where the two
        ends cross the region is empty, and everything holds. Those of a node that feeds ReLUs are narrowed further by
        walks from neurons of the file's choice, with its slopes: whatever it chooses, `Bounds.below` holds.
        """
        file, bounds = self._file, Bounds(self.nodes, region.low, region.high)
        need(region.nesting < LARGEST_NESTING, f"the certificate has bounds nested {region.nesting} deep")
        width = 0
        for at in range(1, len(self.nodes)):
            bounds.add()
            low, high = bounds.lower[at], bounds.upper[at]
            if region.bounds is not None:
                np.maximum(low, region.bounds.lower[at], out=low)
                np.minimum(high, region.bounds.upper[at], out=high)
            for _, neuron, sign in (split for split in region.splits if split[0] == at):
                low[neuron] = max(low[neuron], 0.0) if sign > 0 else low[neuron]
                high[neuron] = min(high[neuron], 0.0) if sign < 0 else high[neuron]
            if at in self._sites:
                for kind, stop in file.take("<u4", 2 * int(file.take("<u4")[0])).reshape(-1, 2).tolist():
                    need(kind < 2, f"the certificate has bounds of kind {kind}")
                    index = self._neurons(len(low)) if kind else np.flatnonzero((low < 0) & (high > 0))
                    self._walk(bounds, at, index, stop, self._slopes(2 * len(index), width) if kind else None)
                own = self._neurons(len(low))
                bounds.slots[at], width = (width, own), width + len(own)
        return region._replace(bounds=bounds, nesting=region.nesting + 1)

    def _walk(self, bounds: Bounds, at: int, index: Any, stop: int, slopes: Any) -> None:
        """Narrows the bounds of some neurons of a node: from below by rows of 1, from above by rows of -1."""
        low, high, most = bounds.lower[at], bounds.upper[at], max(1, self._batch // 2)
        # Neighbours go together, so that they see the same parts of what is behind them.
        order = np.lexsort(np.unravel_index(index, self.nodes[at].shape))
        for part in np.split(order, range(most, len(order), most)):
            rows = np.zeros((2, len(part), len(low)))
            rows[:, np.arange(len(part)), index[part]] = [[1.0], [-1.0]]
            own = None if slopes is None else slopes[[*part, *(len(index) + part)]]
            least = bounds.below(at, rows.reshape(-1, len(low)), stop, own)
            low[index[part]] = np.maximum(low[index[part]], least[: len(part)])
            high[index[part]] = np.minimum(high[index[part]], -least[len(part) :])

    def check(self) -> None:
        """Checks the tree of each span of rows: there is no input of the box for which all of its rows are <= 0.

        Raises:
            RefusedError: A leaf's bound is not above 0.
        """
        leaves = chain.from_iterable(self._leaves(*span) for span in self._case.spans)
        for _, alike in groupby(leaves, key=lambda leaf: leaf[0]):
            while batch := list(islice(alike, self._batch)):
                self._settle(batch)

    def _leaves(self, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """Yields the leaves of one tree: what those share that are walked from together, and what each says.

        It is written from the top, a part before what follows it, so it can't but cover its region: a split is followed
        by both of its sides, z >= 0 and z <= 0 of a neuron, or x <= c and x >= c of an input.
        """
        todo, file = [self.root], self._file
        while todo:
            region = todo.pop()
            part, kind = region._replace(depth=region.depth + 1), int(file.take("u1")[0])
            need(region.depth <= LARGEST_DEPTH, f"the certificate has a leaf under {region.depth} splits")
            if kind == LEAF:
                weights, stop = np.zeros(len(self._case.rows)), int(file.take("<u4")[0])
                weights[first:last] = file.take("<f4", last - first)
                slopes = self._slopes(1, sum(len(own) for _, own in region.bounds.slots.values()))
                beta = file.take("<f4", len(region.splits))
                multipliers = np.concatenate([weights, beta])
                whole = ((multipliers >= 0) & (multipliers < 1e30)).all()
                need(whole, "the certificate has a multiplier outside [0, 1e30)")
                yield (region.bounds, stop, slopes is None), region, weights, slopes, beta
            elif kind == SPLIT:
                at, neuron = file.take("<u4", 2).tolist()
                need(at in self._sites and neuron < self.nodes[at].size, "the certificate splits what is no neuron")
                todo += [part._replace(splits=(*region.splits, (at, neuron, sign))) for sign in (-1, 1)]
            elif kind == CUT:
                at, value = int(file.take("<u4")[0]), float(file.take("<f8")[0])
                need(abs(value) < np.inf, "the certificate splits an input at no number")
                low, high = region.low.copy(), region.high.copy()
                low[at], high[at] = max(low[at], value), min(high[at], value)
                todo += [part._replace(low=low), part._replace(high=high)]
            elif kind == PARABOLAS:
                self._curved(region, first, last)
            else:
                need(kind == BOUNDS, f"the certificate has a part of kind {kind}")
                todo.append(self._bounded(region))

    def _curved(self, region: Region, first: int, last: int) -> None:
        """Bounds a leaf by parabolas, see there: whatever the file chooses, what is computed from it holds."""
        bounds, file, inputs = region.bounds, self._file, len(region.low)
        site, weights = int(file.take("<u4")[0]), np.zeros((1, len(self._case.rows)))
        need(site in self._sites, f"the certificate has parabolas at node {site}, which feeds no ReLU")
        weights[0, first:last] = file.take("<f4", last - first)
        slopes = self._slopes(1, sum(len(own) for _, own in bounds.slots.values()))
        width, own = bounds.slots[site]
        splits, signs = [split for split in region.splits if split[0] < site], np.zeros(len(bounds.lower[site]))
        counts = len(own) + len(splits), inputs + width
        kinds = (("<f4", counts[0]), ("<f4", counts[0]), ("<f4", counts[1]), ("<f2", counts[1]))
        m, p, D, v = (file.take(kind, count).astype(np.float64) for kind, count in kinds)
        whole = ((weights >= 0) & (weights < 1e30)).all() and np.isfinite(np.concatenate([m, p, D, v])).all()
        need(whole, "the certificate has a multiplier outside [0, 1e30), or one that is no number")
        # Those of a node together.
        order = np.argsort([at for at, _, _ in splits], kind="stable")
        splits = [splits[k] for k in order]
        m, p = (np.append(part[: len(own)], part[len(own) :][order]) for part in (m, p))
        chosen = b"" if slopes is None else slopes.tobytes()
        key = (id(bounds), site, chosen, *(part.tobytes() for part in (weights, region.low, region.high)), *splits)
        if key not in self._forms:
            every = {at: bounds.slopes(at, slopes)[:, 0] for at in self._sites if at <= site}
            forms = Forms(bounds, site, every, splits, weights, (region.low, region.high), 4 * self._batch)
            # With its bounds, whose number no others can have as long as they are there.
            self._forms[key] = bounds, forms
            while len(self._forms) > 1 and (
                len(self._forms) > _KEPT or sum(kept.size for _, kept in self._forms.values()) > LARGEST_ROWS
            ):
                self._forms.pop(next(iter(self._forms)))
        for _, neuron, sign in (split for split in region.splits if split[0] == site):
            signs[neuron] = sign
        signs = np.append(signs[own], [sign for _, _, sign in splits])
        self._proved(self._forms[key][1].least(signs, CurvedChoice(m, p, D, v)), weights)

    def _settle(self, leaves: list[tuple[Any, ...]]) -> None:
        """Bounds leaves: a sum of the rows times weights >= 0 that is above 0 shows that one of them is above 0.

        With weights that are all 0 it shows that no input is there at all (Farkas).
        """
        ((bounds, stop, default), *_), regions, weights, slopes, betas = zip(*leaves, strict=True)
        splits: dict[int, Any] = {}
        for row, (region, beta) in enumerate(zip(regions, betas, strict=True)):
            for (at, neuron, sign), multiplier in zip(region.splits, beta.tolist(), strict=True):
                if at not in splits:
                    splits[at] = np.zeros((2, self.nodes[at].size, len(leaves)))
                splits[at][:, neuron, row] = sign, multiplier
        rows = np.stack(weights)
        box = [np.stack(ends) for ends in zip(*(region[1:3] for region in regions), strict=True)]
        alphas = None if default else np.concatenate(slopes)
        bound = bounds.below(len(self.nodes) - 1, rows, stop, alphas, splits, box)
        self._proved(bound, rows)

    def _proved(self, bound: Any, rows: Any) -> None:
        """Counts leaves, or refuses them."""
        need(np.min(bound) > 0, f"a leaf is not proved: its bound is {np.min(bound):.3g}, not above 0", RefusedError)
        room = 0.999 * bound / (rows @ abs(self._case.rows)).sum(axis=1)
        self.leaves, self.lowest = self.leaves + len(rows), min(self.lowest, float(room.min()))


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever a damaged file makes of the code that reads it, it is not accepted."""
    try:
        with np.errstate(all="ignore"):
            yield
    except (RefusedError, UnreadableError):
        raise
    except Exception as error:
        raise UnreadableError(f"a file can't be read ({type(error).__name__}: {error})") from error


@_reading()
def check_stream(certificate: BinaryIO, digest: bytes, network: Callable[[], Network], vnnlib: bytes) -> Report:
    """Checks a certificate whose network may have been read before.

    Args:
        certificate: Its bytes.
        digest: SHA-256 of the network's file.
        network: Returns what `read_network` makes of that file; called if the certificate is for it.
        vnnlib: The property.

    Raises:
        RefusedError: It doesn't prove its claim, or it is one for another network or property.
        UnreadableError: A file can't be read, or isn't taken.
    """
    file = Stream(certificate)
    for name, own, claimed in (
        ("network", digest, file.network),
        ("property", hashlib.sha256(vnnlib).digest(), file.property),
    ):
        need(own == claimed, f"the certificate is for another {name}, of SHA-256 {claimed.hex()[:16]}…", RefusedError)
    graph = network()
    inputs, outputs = graph.nodes[0].size, graph.nodes[graph.output].size
    cases = read_property(vnnlib, inputs, outputs)
    if file.answer:
        x = file.take("<f4", inputs)
        report = Report("sat", 0, 0.0, evaluated(graph, cases, x), x)
    else:
        report = Report("unsat", 0, np.inf, "by walks")
        for case in cases:
            tree = Tree(file, graph, case)
            tree.check()
            report = report._replace(leaves=report.leaves + tree.leaves, lowest=min(report.lowest, tree.lowest))
    file.end()
    return report


@_reading()
def check(certificate: Path, onnx: Path, vnnlib: Path) -> Report:
    """Checks a certificate; see `check_stream` for errors."""
    content, text = read(onnx), read(vnnlib, LARGEST_TEXT)
    with certificate.open("rb") as raw:
        return check_stream(raw, hashlib.sha256(content).digest(), lambda: read_network(content), text)
