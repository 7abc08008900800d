"""Writes certificates: proofs of a property file that `verifiers.checker` accepts, or the reason why there is none.

The cheapest proof that does is taken: intervals, CROWN over intervals, CROWN; then branch and bound for the
alternatives that are still open. What is written has been checked as a stranger will check it.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.files import write_bytes
from prunecert.verifiers.base import OutputSpec, Status, UnsupportedError
from prunecert.verifiers.certification import WAYS, Written
from prunecert.verifiers.checker import files
from prunecert.verifiers.checker.network import Network, read_network
from prunecert.verifiers.checker.proof import LARGEST_TEXT, Tree, check_stream
from prunecert.verifiers.checker.vnnlibfile import Case, read_property
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.bab.tree_proof import IncompleteTreeError, sites, trees
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.onnx.reader import read_network as read_sparse
from prunecert.verifiers.sparse.proofs.certificate import (
    CaseProof,
    Entry,
    Leaf,
    SiteBounds,
    Walk,
    encode_sat,
    encode_unsat,
)
from prunecert.verifiers.sparse.threads import threads
from prunecert.verifiers.sparse.warmup import warm_up

Array = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]


class UncertifiedError(Exception):
    """There is no certificate; the message says why."""

    def __init__(self, status: Status, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        #: Whether there was a proof that the checker did not accept.
        self.refused = refused


class Certifier:
    """Certifies properties of one network.

    Args:
        onnx: Its file.
        search: The engine and the checker of leaves for it, if there are any already.

    Raises:
        UserError: The file can't be read by the checker.
    """

    def __init__(self, onnx: Path, search: tuple[Engine, Checker] | None = None) -> None:
        self._onnx = onnx
        with refusing(str(onnx)):
            content = files.read(onnx)
            self._network: Network = read_network(content)
        self._sha256 = hashlib.sha256(content).digest()
        self._search = search

    def write(self, vnnlib: Path, target: Path, timeout: float, limits: Limits | None = None) -> Written:
        """Writes a certificate, if there is one, to `target`.

        Args:
            vnnlib: The property.
            target: The file; not touched if there is no certificate.
            timeout: Seconds for the search; compiling kernels is no part of it.
            limits: Of the search.

        Raises:
            UserError: The property can't be read by the checker.
        """
        with refusing(str(vnnlib)):
            content = files.read(vnnlib, LARGEST_TEXT)
        written, proof = self.certify(content, timeout, limits, name=str(vnnlib))
        if not written.reason:
            write_bytes(target, proof)
        return written

    def certify(
        self,
        vnnlib: bytes,
        timeout: float,
        limits: Limits | None = None,
        *,
        finished: Search | None = None,
        witness: npt.NDArray[Any] | None = None,
        name: str = "the property",
    ) -> tuple[Written, bytes]:
        """Returns what became of it, and the certificate's bytes, which have been checked; none if there is none.

        Args:
            vnnlib: The property's text.
            timeout: Seconds for a search.
            limits: Of the search.
            finished: A search that has proved the property; its tree is taken if it does.
            witness: A counterexample to be certified, in place of a search.
            name: What the property is called in messages.

        Raises:
            UserError: The property can't be read by the checker.
        """
        nodes = self._network.nodes
        with refusing(name):
            cases = read_property(vnnlib, nodes[0].size, nodes[self._network.output].size)
        digest = hashlib.sha256(vnnlib).digest()
        warm_up()
        begin = time.monotonic()
        limits, deadline = limits or Limits(), begin + timeout
        # A leaf of default slopes may hold over the bounds that it was found for and not over better ones.
        attempts: list[tuple[Limits, Search | None]] = [(limits, None), (replace(limits, tighten_after=0), None)]
        if finished is not None:
            attempts.insert(0, (limits, finished))
        for number, (attempt, search) in enumerate(attempts, start=1):
            how = "bab"
            try:
                if witness is None:
                    how, content = self._proved(cases, digest, deadline, attempt, search)
                else:
                    how, content = "witness", encode_sat(self._sha256, digest, witness.reshape(-1).astype(np.float32))
                searched = time.monotonic() - begin
                return self._checked(vnnlib, content, how, searched), content
            except UncertifiedError as error:
                # What was looked for and not found isn't looked for again.
                last = number == len(attempts) or (search is None and not error.refused)
                if how != "bab" or last:
                    return Written(str(error.status), str(error), search_s=time.monotonic() - begin), b""
        raise AssertionError("the last attempt returns")

    def _proved(
        self, cases: Sequence[Case], digest: bytes, deadline: float, limits: Limits, finished: Search | None
    ) -> tuple[str, bytes]:
        """Returns a certificate of all boxes, or of a counterexample to one, and how it came about."""
        proofs, hows = [], ["intervals"]
        for case in cases:
            proof, how = self._case(case, deadline, limits, finished if len(cases) == 1 else None)
            if not isinstance(proof, CaseProof):
                return how, encode_sat(self._sha256, digest, proof)
            proofs.append(proof)
            hows.append(how)
        return max(hows, key=WAYS.index), encode_unsat(self._sha256, digest, proofs)

    def _checked(self, vnnlib: bytes, content: bytes, how: str, searched: float) -> Written:
        """Checks a certificate as a stranger will.

        Raises:
            UncertifiedError: It is refused.
        """
        begin = time.monotonic()
        try:
            report = check_stream(io.BytesIO(content), self._sha256, lambda: self._network, vnnlib)
        except (files.RefusedError, files.UnreadableError) as error:
            reason = f"the checker does not accept the proof: {error}"
            raise UncertifiedError(Status.UNKNOWN, reason, refused=True) from error
        return Written(report.answer, "", how, report.leaves, len(content), searched, time.monotonic() - begin)

    def _case(
        self, case: Case, deadline: float, limits: Limits, finished: Search | None = None
    ) -> tuple[CaseProof | Single, str]:
        """Returns a proof of one box, or a counterexample, and how it came about."""
        plain = [SiteBounds() for _ in self._network.sites]
        walked = [SiteBounds((Walk(),) if self._walks(site) else ()) for site in self._network.sites]
        leaves: list[Leaf | None] = []
        for how, bounds, stops in (
            ("intervals", plain, (self._last_relu(),)),
            ("crown-ibp", plain, (self._last_relu(), 0)),
            ("crown", walked, (self._last_relu(), 0)),
        ):
            leaves = self._leaves(case, bounds, stops)
            if None not in leaves:
                return CaseProof(bounds, [[leaf] for leaf in leaves if leaf is not None]), how
        return self._branched(case, leaves, deadline, limits, finished)

    def _leaves(self, case: Case, bounds: Sequence[SiteBounds], stops: tuple[int, ...]) -> list[Leaf | None]:
        """Returns a leaf for each alternative that one walk over the whole box excludes, None for the others."""
        leaves: list[Leaf | None] = [None] * len(case.spans)
        with np.errstate(all="ignore"):
            tree = Tree(_stream(CaseProof(bounds, [])), self._network, case)
            for stop in stops:
                least: Array = tree.root.bounds.below(len(tree.nodes) - 1, np.eye(len(case.rows)), stop)
                for k, (first, last) in enumerate(case.spans):
                    part = least[first:last]
                    if leaves[k] is None and len(part) and part.max() > 0:
                        weights = (np.arange(last - first) == part.argmax()).astype(np.float32)
                        leaves[k] = Leaf(weights, np.zeros(0, dtype=np.float32), None, stop)
        return leaves

    def _last_relu(self) -> int:
        """Returns the last ReLU before the output; walks that stop there are intervals."""
        return max((at for at, node in enumerate(self._network.nodes) if node.relu), default=0)

    def _walks(self, site: int) -> bool:
        """Whether walks can improve a node's intervals: not if it is affine in the input."""
        return any(self._network.nodes[source].relu or source for source in self._network.nodes[site].sources)

    def _branched(
        self, case: Case, leaves: list[Leaf | None], deadline: float, limits: Limits, finished: Search | None
    ) -> tuple[CaseProof | Single, str]:
        """Returns a proof of what is still open by the tree of a finished search, or of one that is made now.

        Raises:
            UncertifiedError: There is none.
        """
        if self._search is None:
            try:
                layers = read_sparse(self._onnx)
            except UnsupportedError as error:
                raise UncertifiedError(Status.UNKNOWN, f"the search does not take the network: {error}") from error
            self._search = Engine(layers, threads()), Checker(layers, threads())
        engine, checker = self._search
        nodes, network = checker.network.nodes, self._network
        same = len(checker.activated) == len(network.sites) and all(
            nodes[mine].size == network.nodes[site].size
            for mine, site in zip(checker.activated, network.sites, strict=True)
        )
        if not same:
            raise UncertifiedError(Status.UNKNOWN, "the search reads the network's layers otherwise than the checker")
        lower, upper = _rounded(case.lower, -np.inf), _rounded(case.upper, np.inf)
        left = [k for k, leaf in enumerate(leaves) if leaf is None]
        spans = [case.spans[k] for k in left]
        if finished is not None and np.array_equal(finished.lower, lower) and np.array_equal(finished.upper, upper):
            run, outcome, left = finished, finished.outcome, list(range(len(case.spans)))
        else:
            spec = OutputSpec(tuple((case.rows[a:b], case.limits[a:b]) for a, b in spans))
            run = Search(engine, checker, lower, upper, spec, limits, deadline)
            outcome = run.run()
        if outcome.status is Status.SAT and outcome.witness is not None:
            # The box that was searched is rounded outwards.
            inner = _rounded(case.lower, np.inf), _rounded(case.upper, -np.inf)
            return np.clip(outcome.witness, *inner).astype(np.float32), "witness"
        branched = run.branched
        if outcome.status is not Status.UNSAT or branched is None or not branched.leaves:
            reason = outcome.detail or "CROWN proves it by less than the rounding that the checker charges"
            raise UncertifiedError(outcome.status if outcome.status is not Status.UNSAT else Status.UNKNOWN, reason)
        places = dict(zip(checker.activated, network.sites, strict=True))
        try:
            split = trees(branched, places)
        except IncompleteTreeError as error:
            raise UncertifiedError(Status.UNKNOWN, str(error)) from error
        entries: list[Sequence[Entry]] = []
        for k, leaf in enumerate(leaves):
            if leaf is not None:
                entries.append([leaf])
            elif left.index(k) in split:
                entries.append(split[left.index(k)])
            else:
                raise UncertifiedError(
                    Status.UNKNOWN, f"the search proved alternative {k} at the root, the checker not"
                )
        return CaseProof(sites(branched, {mine: self._walks(site) for mine, site in places.items()}), entries), "bab"


def _stream(proof: CaseProof) -> files.Stream:
    return files.Stream(io.BytesIO(encode_unsat(bytes(32), bytes(32), [proof])))


def _rounded(values: Array, direction: float) -> Single:
    """Rounds to float32 in one direction."""
    nearest = values.astype(np.float32)
    wrong = nearest > values if direction < 0 else nearest < values
    return np.where(wrong, np.nextafter(nearest, np.float32(direction)), nearest).astype(np.float32)


class refusing:  # noqa: N801 (a context manager, used like a function)
    """Turns what the checker can't read into a user's error that names the file."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError):
            raise UserError(f"{self._name} is not taken by the checker of certificates: {error}.") from error
