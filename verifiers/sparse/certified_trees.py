"""From searches to the trees of a certificate: those of a search that is finished, or of one that is made for it.

A search proves some alternatives of a property by CROWN alone, and the checker, whose CROWN rounds otherwise and may
draw another line at a tie, doesn't always follow. Such alternatives are searched once more, all of them as if CROWN
had left them open, so that each gets a leaf that says its slopes. That tree stands below bounds of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import OutputSpec, Status, UnsupportedError
from prunecert.verifiers.checker.nodes import Network
from prunecert.verifiers.checker.vnnlibfile import Case
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.quadratic.tree_proof import entries
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.bab.tree_proof import IncompleteTreeError, first_sites, sites, trees
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.proofs.certificate import Bounded, CaseProof, Entry, Leaf, Parabolas, SiteBounds
from prunecert.verifiers.sparse.proofs.hidden_bounds import followed, walks
from prunecert.verifiers.sparse.threads import threads

Single = npt.NDArray[np.float32]
#: For each alternative of the file that a search was about: its number there, and the order of its rows.
_Places = Mapping[int, tuple[int, npt.NDArray[np.intp]]]


class UncertifiedError(Exception):
    """There is no certificate; the message says why."""

    def __init__(self, status: Status, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        #: Whether there was a proof that the checker did not accept.
        self.refused = refused


class TreeWriter:
    """Proves boxes of one network by branch and bound.

    Args:
        onnx: The network's file.
        network: What the checker reads in it.
        search: The engine and the checker of leaves for it, if there are any already.
    """

    def __init__(self, onnx: Path, network: Network, search: tuple[Engine, Checker] | None) -> None:
        self._onnx, self._network, self._search = onnx, network, search

    def prove(
        self,
        case: Case,
        leaves: Sequence[Leaf | None],
        deadline: float,
        limits: Limits,
        finished: Sequence[Search] = (),
        *,
        within: bool = False,
        used: list[Search] | None = None,
    ) -> CaseProof | Single:
        """Returns a proof of what is still open of a box, or a counterexample.

        Args:
            case: The box.
            leaves: For each alternative the leaf that is its proof, or None.
            deadline: `time.monotonic` at which a new search ends.
            limits: Of a new search.
            finished: Searches that are done; the tree of one that was about this box is taken.
            within: Whether hidden neurons are bounded just as in the search: by walks whose slopes are its own, and
                improved bounds within these, for each alternative anew. Else walks with default slopes go over what
                has been improved before them, which takes less, and mostly, but not always, is at least as good.
            used: Where the searches are kept whose trees are taken.

        Raises:
            UncertifiedError: There is none.
        """
        left = [k for k, leaf in enumerate(leaves) if leaf is None]
        # Those over which the leaves were found.
        network = self._network
        bounds = [SiteBounds(walks(network, site)) for site in network.sites]
        above: list[Entry] = [Bounded(bounds)] if within else []
        proofs: dict[int, list[Entry]] = {k: [*above, leaf] for k, leaf in enumerate(leaves) if leaf is not None}
        run, places = _fitting(case, finished)
        for every in (False, True):
            if run is None:
                # What CROWN proves needs no attack.
                own_limits = replace(limits, every=True, attack_steps=0) if every else limits
                run = self._searched(case, left, own_limits, deadline)
                places = {k: (number, np.arange(last - first)) for number, (k, first, last) in _numbered(case, left)}
            outcome = run.outcome
            if outcome.status is Status.SAT and outcome.witness is not None:
                # The box that was searched is rounded outwards.
                inner = _rounded(case.lower, np.inf), _rounded(case.upper, -np.inf)
                return np.clip(outcome.witness, *inner).astype(np.float32)
            if outcome.status is not Status.UNSAT:
                raise UncertifiedError(outcome.status, outcome.detail or "the search left it open")
            if run.by_inputs:
                raise UncertifiedError(Status.UNKNOWN, "the search split inputs, of which no tree is kept")
            if used is not None:
                used.append(run)
            own, split = self._tree(run, case if within else None)
            for k in [k for k in left if places[k][0] in split]:
                number, order = places[k]
                tree = [
                    replace(e, weights=e.weights[order]) if isinstance(e, Leaf | Parabolas) else e
                    for e in split[number]
                ]
                # The first search's bounds are those of the whole box, another's hold for its own trees.
                proofs[k] = [Bounded(own), *tree] if every else tree
            bounds = bounds if every else own or bounds
            left = [k for k in left if k not in proofs]
            if not left:
                return CaseProof(bounds, [proofs[k] for k in range(len(leaves))])
            run = None
        raise UncertifiedError(Status.UNKNOWN, f"the search proved alternative {left[0]} at the root, the checker not")

    def _searched(self, case: Case, left: Sequence[int], limits: Limits, deadline: float) -> Search:
        """Searches for proofs of some alternatives."""
        if self._search is None:
            try:
                layers = read_network(self._onnx)
            except UnsupportedError as error:
                raise UncertifiedError(Status.UNKNOWN, f"the search does not take the network: {error}") from error
            self._search = Engine(layers, threads()), Checker(layers, threads())
        spans = [case.spans[k] for k in left]
        spec = OutputSpec(tuple((case.rows[first:last], case.limits[first:last]) for first, last in spans))
        lower, upper = _rounded(case.lower, -np.inf), _rounded(case.upper, np.inf)
        run = Search(*self._search, lower, upper, spec, limits, deadline)
        run.run()
        return run

    def _tree(self, run: Search, within: Case | None = None) -> tuple[list[SiteBounds], dict[int, list[Entry]]]:
        """Returns how a search bounded the network, and its trees by alternative; nothing where CROWN did it all.

        Args:
            run: The search.
            within: Its box, if its bounds are to be followed step by step, see `prove`.
        """
        branched, network = run.branched, self._network
        if branched is None:
            return [], {}
        if branched.forgotten:
            raise UncertifiedError(Status.UNKNOWN, "the search's tree takes more memory than its limit (`memory_mb`)")
        proofs = branched.second_order.proofs
        if any(proof.tree.forgotten for proof in proofs.values()):
            raise UncertifiedError(
                Status.UNKNOWN, "the search's tree takes more than its part of the memory (`memory_mb`)"
            )
        if not (branched.leaves or proofs):
            return [], {}
        checker = branched.checker
        nodes = checker.network.nodes
        same = len(checker.activated) == len(network.sites) and all(
            nodes[mine].size == network.nodes[site].size
            for mine, site in zip(checker.activated, network.sites, strict=True)
        )
        if not same:
            raise UncertifiedError(Status.UNKNOWN, "the search reads the network's layers otherwise than the checker")
        places = dict(zip(checker.activated, network.sites, strict=True))
        try:
            split = trees(branched, places) if branched.leaves else {}
        except IncompleteTreeError as error:
            raise UncertifiedError(Status.UNKNOWN, str(error)) from error
        walked = {mine: walks(network, site) for mine, site in places.items()}
        first = {k: proof for k, proof in proofs.items() if not proof.improved} if branched.tightened else {}
        curved = {k: entries(proof, places) for k, proof in proofs.items()}
        if not first and within is None:
            return sites(branched, walked), split | curved
        # The first ones hold for the bounds that were there then, all others for better ones.
        better = Bounded(sites(branched, {mine: walks(network, site, within=True) for mine, site in places.items()}))
        nested = {k: [better, *tree] for k, tree in (split | curved).items() if k not in first}
        if within is None:
            return first_sites(next(iter(first.values())), walked), nested | {k: curved[k] for k in first}
        slots = {k: Bounded(first_sites(proof, dict.fromkeys(walked, ()))) for k, proof in first.items()}
        return followed(network, within), nested | {k: [slots[k], *curved[k]] for k in first}


def _numbered(case: Case, left: Sequence[int]) -> list[tuple[int, tuple[int, int, int]]]:
    """Returns the alternatives that are left: their number among these, their own number, and their rows."""
    return list(enumerate((k, *case.spans[k]) for k in left))


def _fitting(case: Case, finished: Sequence[Search]) -> tuple[Search | None, _Places]:
    """Returns a search that was about all of a box, and where it has the box's alternatives; None if none was."""
    lower, upper = _rounded(case.lower, -np.inf), _rounded(case.upper, np.inf)
    for run in finished:
        if np.array_equal(run.lower, lower) and np.array_equal(run.upper, upper):
            places = _places(case, run.spec)
            if len(places) == len(case.spans):
                return run, places
    return None, {}


def _places(case: Case, spec: OutputSpec) -> _Places:
    """Returns where a specification has a box's alternatives, whose rows it may have in another order."""
    orders: dict[bytes, tuple[int, npt.NDArray[np.intp]]] = {}
    for number, (rows, limits) in enumerate(spec.disjuncts):
        content, order = _sorted(rows, limits)
        orders.setdefault(content, (number, order))
    places = {}
    for k, (first, last) in enumerate(case.spans):
        content, order = _sorted(case.rows[first:last], case.limits[first:last])
        if content in orders:
            number, other = orders[content]
            # Row order[i] here is row other[i] there.
            places[k] = number, other[np.argsort(order)]
    return places


def _sorted(rows: npt.NDArray[np.float64], limits: npt.NDArray[np.float64]) -> tuple[bytes, npt.NDArray[np.intp]]:
    """Returns an alternative whatever the order of its rows, and that order. -0 is 0."""
    matrix = np.column_stack([rows, limits]).astype(np.float64) + 0.0
    order = np.lexsort(matrix.T)
    return matrix[order].tobytes(), order


def _rounded(values: npt.NDArray[np.float64], direction: float) -> Single:
    """Rounds to float32 in one direction."""
    nearest = values.astype(np.float32)
    wrong = nearest > values if direction < 0 else nearest < values
    return np.where(wrong, np.nextafter(nearest, np.float32(direction)), nearest).astype(np.float32)
