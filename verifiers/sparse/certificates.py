"""Writes certificates: proofs of a property file that `verifiers.checker` accepts, or the reason why there is none.

The cheapest proof that does is taken: intervals, CROWN over intervals, CROWN, with bounds of the hidden neurons that it
needs most (`proofs.relevant`), then of all; then branch and bound for the alternatives that are still open; where few
inputs vary, boxes at last. What is written has been checked as a stranger will check it.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.files import write_bytes
from prunecert.verifiers.base import Status
from prunecert.verifiers.certification import WAYS, Written
from prunecert.verifiers.checker import files
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.nodes import Network
from prunecert.verifiers.checker.proof import LARGEST_TEXT, Tree, check_stream
from prunecert.verifiers.checker.vnnlibfile import Case, read_property
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certified_trees import TreeWriter, UncertifiedError
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.proofs.boxes import UnprovedBoxError, cut_boxes, few_inputs
from prunecert.verifiers.sparse.proofs.certificate import (
    CaseProof,
    Leaf,
    SiteBounds,
    Walk,
    encode_sat,
    encode_unsat,
    stream,
)
from prunecert.verifiers.sparse.proofs.hidden_bounds import walks
from prunecert.verifiers.sparse.proofs.relevant import SHARES, relevant
from prunecert.verifiers.sparse.warmup import warm_up

Array = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Attempt:
    """A way to a proof where bounds of the whole box are none.

    Args:
        limits: Of the search.
        finished: Searches that are done already.
        cut: Whether inputs are cut instead.
        within: Whether hidden neurons are bounded just as in the search, see `TreeWriter.prove`.
        used: The searches whose trees were taken; filled in the attempt.
    """

    limits: Limits
    finished: tuple[Search, ...] = ()
    cut: bool = False
    within: bool = False
    used: list[Search] = field(default_factory=list)


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
        self._trees = TreeWriter(onnx, self._network, search)

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
        finished: Sequence[Search] = (),
        witness: npt.NDArray[Any] | None = None,
        name: str = "the property",
    ) -> tuple[Written, bytes]:
        """Returns what became of it, and the certificate's bytes, which have been checked; none if there is none.

        Args:
            vnnlib: The property's text.
            timeout: Seconds for a search, and again for boxes.
            limits: Of the search.
            finished: Searches that have proved boxes of the property; their trees are taken where they do.
            witness: A counterexample to be certified, in place of a search.
            name: What the property is called in messages.

        Raises:
            UserError: The property can't be read by the checker.
        """
        nodes = self._network.nodes
        with refusing(name):
            cases = read_property(vnnlib, nodes[0].size, nodes[self._network.output].size)
        digest = hashlib.sha256(vnnlib).digest()
        if cases and witness is None:
            warm_up()
        begin = time.monotonic()
        begins: dict[tuple[bool, bool], float] = {}
        limits = limits or Limits()
        # A leaf of default slopes may hold over the bounds that it was found for and not over better ones. And a search
        # that begins with better ones has no second-order bounds.
        attempts = [Attempt(limits), Attempt(replace(limits, tighten_after=0))]
        if all(map(few_inputs, cases)):
            # At once where the search cut inputs, too.
            attempts.insert(0 if any(run.by_inputs for run in finished) else 2, Attempt(limits, cut=True))
        if finished:
            attempts.insert(0, Attempt(limits, tuple(finished)))
        while True:
            attempt, how = attempts.pop(0), "bab"
            # Another way has its own time: what was tried before may have used all of it.
            deadline = begins.setdefault((attempt.cut, bool(attempt.finished)), time.monotonic()) + timeout
            try:
                if witness is None:
                    how, content = self._proved(cases, digest, deadline, attempt)
                else:
                    how, content = "witness", encode_sat(self._sha256, digest, witness.reshape(-1).astype(np.float32))
                searched = time.monotonic() - begin
                return self._checked(vnnlib, content, how, searched), content
            except UncertifiedError as error:
                if error.refused and attempt.used and not attempt.within:
                    # The same trees, over bounds as the search had them.
                    attempts.insert(0, replace(attempt, finished=tuple(attempt.used), within=True, used=[]))
                elif not error.refused and not attempt.finished:
                    # What was looked for and not found isn't looked for again, but in another way.
                    attempts = [other for other in attempts if other.cut != attempt.cut]
                if how != "bab" or not attempts:
                    return Written(str(error.status), str(error), search_s=time.monotonic() - begin), b""

    def _proved(self, cases: Sequence[Case], digest: bytes, deadline: float, attempt: Attempt) -> tuple[str, bytes]:
        """Returns a certificate of all boxes, or of a counterexample to one, and how it came about."""
        proofs, hows = [], ["intervals"]
        for case in cases:
            proof, how = self._case(case, deadline, attempt)
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

    def _case(self, case: Case, deadline: float, attempt: Attempt) -> tuple[CaseProof | Single, str]:
        """Returns a proof of one box, or a counterexample, and how it came about.

        Raises:
            UncertifiedError: There is none.
        """
        runs = [run.branched for run in attempt.finished if run.branched]
        split = any(run.leaves or run.second_order.proofs for run in runs)
        how, bounds, leaves = self._at_root(case, quick=split)
        if None not in leaves:
            return CaseProof(bounds, [[leaf] for leaf in leaves if leaf is not None]), how
        if not attempt.cut:
            proof = self._trees.prove(
                case, leaves, deadline, attempt.limits, attempt.finished, within=attempt.within, used=attempt.used
            )
            return proof, "bab" if isinstance(proof, CaseProof) else "witness"
        try:
            return cut_boxes(self._network, case, bounds, deadline), "boxes"
        except UnprovedBoxError as error:
            raise UncertifiedError(Status.TIMEOUT, str(error)) from error

    def _at_root(self, case: Case, *, quick: bool) -> tuple[str, list[SiteBounds], list[Leaf | None]]:
        """Looks for a proof of the whole box, the cheapest to check first.

        Args:
            case: The box.
            quick: Whether CROWN won't do, as after a search that had to split.

        Returns:
            Its name, the bounds and a leaf for each alternative; some are None if there is no proof by bounds of all
            neurons that walks improve, which these are then.
        """
        sites = self._network.sites
        chosen = {site: np.zeros(0, dtype=np.int64) for site in sites if walks(self._network, site)}
        bounds, stops = [SiteBounds() for _ in sites], (self._last_relu(), 0)
        leaves, tree = self._leaves(case, bounds, stops[:1])
        how = "intervals"
        for share in (0.0, *(SHARES if chosen and not quick else ()), 1.0):
            if None not in leaves:
                break
            how = "crown" if share else "crown-ibp"
            if share == 1.0:
                bounds = [SiteBounds(walks(self._network, site)) for site in sites]
            elif share:
                rows = [k for leaf, span in zip(leaves, case.spans, strict=True) if leaf is None for k in range(*span)]
                neurons = relevant(tree, rows, share)
                # Those walked from so far stay, which is why they matter less now.
                chosen = {site: np.union1d(own, neurons.get(site, own)) for site, own in chosen.items()}
                bounds = [SiteBounds((Walk(chosen[site]),) if len(chosen.get(site, ())) else ()) for site in sites]
            leaves, tree = self._leaves(case, bounds, stops)
        return how, bounds, leaves

    def _leaves(
        self, case: Case, bounds: Sequence[SiteBounds], stops: tuple[int, ...]
    ) -> tuple[list[Leaf | None], Tree]:
        """Returns a leaf for each alternative that one walk over the whole box excludes, None for the others.

        And the case, bounded.
        """
        leaves: list[Leaf | None] = [None] * len(case.spans)
        with np.errstate(all="ignore"):
            tree = Tree(stream(CaseProof(bounds, [])), self._network, case)
            for stop in stops:
                least: Array = tree.root.bounds.below(len(tree.nodes) - 1, np.eye(len(case.rows)), stop)
                for k, (first, last) in enumerate(case.spans):
                    part = least[first:last]
                    if leaves[k] is None and len(part) and part.max() > 0:
                        weights = (np.arange(last - first) == part.argmax()).astype(np.float32)
                        leaves[k] = Leaf(weights, np.zeros(0, dtype=np.float32), None, stop)
        return leaves, tree

    def _last_relu(self) -> int:
        """Returns the last ReLU before the output; walks that stop there are intervals."""
        return max((at for at, node in enumerate(self._network.nodes) if node.relu), default=0)


class refusing:  # noqa: N801 (a context manager, used like a function)
    """Turns what the checker can't read into a user's error that names the file."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError):
            known = isinstance(error, files.RefusedError | files.UnreadableError | OSError)
            reason = str(error) if known else f"it has a form that its readers do not know ({type(error).__name__})"
            raise UserError(f"{self._name} is not taken by the checker of certificates: {reason}.") from error
