"""α-CROWN and branch and bound by the sparse engine: bounds on the network that is left over each image's box.

`sparse-alpha-crown` optimises the slopes of the disjuncts that CROWN leaves open. `sparse-bab` splits ReLUs from
there, or inputs where few vary, until every subdomain is proved, a counterexample is found or time is up. Nothing
counts as proved before `verifiers.sparse.certify`, or `verifiers.sparse.bab.box_bounds` for a part of the box, has
bounded it on the original layers in float64 with all rounding charged, so `unsat` holds for the real-valued network
whose weights are those of the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from prunecert.onnx.io import identity
from prunecert.onnx.nodes import CURVES
from prunecert.verifiers.adapters.sparse_search_engine import SparseSearch
from prunecert.verifiers.base import Capabilities, Instance, Kind
from prunecert.verifiers.settings import Setting

if TYPE_CHECKING:
    from prunecert.verifiers.sparse.bab.search import Search
    from prunecert.verifiers.sparse.proofs.store import Earlier, Store


class SparseAlphaCrown(SparseSearch):
    """CROWN, then optimised slopes (α) for the disjuncts that it leaves open, certified in float64."""

    name = "sparse-alpha-crown"
    kind = Kind.INCOMPLETE
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "iterations": Setting(default=20, at_least=1, help="steps of the optimiser")
    }

    def _limits(self) -> dict[str, Any]:
        return {"root_steps": self.settings["iterations"], "attack_steps": 0, "splits": False}


class SparseBab(SparseSearch):
    """Branch and bound on ReLUs with α, β and filtered smart branching, or on inputs; leaves are certified in float64.

    The folder `proofs` holds, by box and property, what searches on the same network at another compression ratio, or
    on this one, have found. A counterexample is tried before anything else, a tree once CROWN has left the box open;
    each leaf is certified anew. It changes how long an answer takes, not what is proved. Of a search that runs out of
    time only a small tree is kept.
    """

    name = "sparse-bab"
    kind = Kind.COMPLETE
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "root_iterations": Setting(
            default=60, at_least=1, idle=("curves", "inputs"), help="steps of the optimiser on the whole box"
        ),
        "iterations": Setting(default=12, at_least=1, idle=("inputs",), help="steps for a pair of children"),
        "candidates": Setting(
            default=6,
            at_least=1,
            idle=("l2", "curves", "inputs"),
            help="splits whose children are bounded before one is chosen; 1: none is",
        ),
        "batch": Setting(
            default=0,
            at_least=0,
            idle=("curves", "inputs"),
            help="subdomains split together; 0: by the size of what is left of the network",
        ),
        "attack_steps": Setting(
            default=20, at_least=0, help="gradient steps of an attack; 0: no attack, during the search neither"
        ),
        "memory_mb": Setting(
            default=3072,
            at_least=1,
            help="most memory in MiB that open subdomains, what is left of the network, or CROWN's walks may take",
        ),
        "seed": Setting(default=0, at_least=0, help="of the attack's random starts"),
        "proofs": Setting(
            default="",
            idle=("l2", "int8", "curves"),
            help="folder of counterexamples and trees of other searches, to start from and to add to; empty: none",
        ),
        "split": Setting(
            default="auto",
            choices=("auto", "input", "relu"),
            later=True,
            idle=("l2",),
            help="what is split; auto: inputs where at most 20 of them vary and an estimate says that it will do, and "
            "ReLUs elsewhere, or where `proofs` are kept, in which splits of inputs are not stored",
        ),
        "second_order": Setting(
            default=True,
            later=True,
            idle=("l2", "int8", "curves", "inputs"),
            help="whether large trees begin with second-order bounds of the last hidden layer; not where `proofs` are "
            "kept, in which they are not stored",
        ),
    }

    @classmethod
    def capabilities(cls) -> Capabilities:
        """What the other sparse adapters take, and Sigmoid and Tanh."""
        others = super().capabilities()
        return replace(others, operators=others.operators | CURVES)

    def _limits(self) -> dict[str, Any]:
        own = self.settings
        return {
            "root_steps": own["root_iterations"],
            "steps": own["iterations"],
            "candidates": own["candidates"],
            "batch": own["batch"],
            "attack_steps": own["attack_steps"],
            "memory_mb": float(own["memory_mb"]),
            "seed": own["seed"],
            "split": own.get("split", "auto"),
            "second_order": own.get("second_order", True),
        }

    def load(self, onnx: Path) -> None:
        """Reads the network."""
        super().load(onnx)
        self._sha256 = identity(onnx)
        self._store: Store | None = None
        if self._smooth is not None:
            return
        # Trees are carried from network to network by their neurons' names, which a quantised file's roundings haven't.
        if self.settings["proofs"] and self._quantised is None:
            from prunecert.verifiers.sparse.onnx.neuron_names import names_of
            from prunecert.verifiers.sparse.proofs.store import Store, key

            self._name_of = key
            self._names = names_of(self._network, onnx)
            folder = Path(self.settings["proofs"])
            with contextlib.suppress(OSError):
                # The answers will say that nothing can be stored.
                folder.mkdir(parents=True, exist_ok=True)
            self._store = Store(folder, self._names)

    def _find(self, instance: Instance) -> Earlier | None:
        if self._store is None:
            return None
        self._key = self._name_of(instance)
        return self._store.find(self._key)

    def _keep(self, run: Search) -> str:
        earlier, out = run.earlier, run.outcome
        if self._store is None or self._names is None or earlier is None:
            return ""
        said = []
        if out.reused and earlier.summary is not None:
            said.append(f"{out.reused} leaves from the proof for network {earlier.summary.network[:12]}")
        if earlier.refused:
            said.append(f"a stored proof was not used: {', '.join(earlier.refused)}")
        try:
            witness = earlier.witness
            if out.witness is not None and (witness is None or not np.array_equal(out.witness, witness)):
                self._store.keep_witness(self._key, out.witness)
            proof = run.pack(self._sha256, self._names)
            if proof is not None:
                self._store.keep_tree(self._key, proof)
        except OSError as error:
            said.append(f"the proof could not be stored: {error}")
        return "; ".join(said)
