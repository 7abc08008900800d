"""alpha-beta-CROWN's Python API, made fit for one process and many instances; imported in the worker only.

The API's own `ABCrownSolver` is used with these additions:

* a counterexample is caught in memory where upstream would write it to a file;
* a NaN bound is an error: upstream drops a domain of which ``bound <= threshold`` is false, which NaN satisfies;
* a domain whose ReLUs are all split is decided by `verifiers.adapters.leaf_lp`, where upstream would give up;
* iterations are counted, and the end of a search in which all ReLUs are split is told from other unknowns;
* l2 balls, which upstream's specification class can't express, are handed to its specification handler directly.

The unsafe set is given as matrices (A y <= b, as a VNN-LIB file states it), never as an expression: expressions
state the property, and their strict inequalities are shifted by 1e-8.
"""

from __future__ import annotations

import copy
import gc
import importlib
import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from prunecert.errors import UserError, did_you_mean
from prunecert.verifiers.adapters import leaf_lp
from prunecert.verifiers.adapters.abcrown.install import Install
from prunecert.verifiers.base import Instance
from prunecert.vision import import_torchvision


@dataclass
class SearchEnd:
    """What one search ended with.

    Args:
        word: Upstream's status.
        seconds: All of it.
        bab_seconds: Branch and bound.
        domains: Visited.
        iterations: Of branch and bound.
        unstable: ReLUs that the first bounds leave unstable.
        witness: Counterexample as upstream has it, or None.
        exhausted: Whether branch and bound ended because every ReLU of a domain was split.
        batch: Domains bounded together in the end; halved for each time that CUDA ran out of memory.
        open_leaf: Why a fully split domain could not be decided, if so.
    """

    word: str
    seconds: float
    bab_seconds: float = 0.0
    domains: int = 0
    iterations: int = 0
    unstable: int | None = None
    witness: Any = None
    exhausted: bool = False
    batch: int = 0
    open_leaf: str = ""


def merge(base: dict[str, Any], changes: Mapping[str, Any], path: str = "") -> None:
    """Lays nested settings over others.

    Raises:
        UserError: A key is unknown to alpha-beta-CROWN, or names a group where a value belongs or the reverse.
    """
    for key, value in changes.items():
        name = f"{path}{key}"
        if key not in base:
            raise UserError(did_you_mean("setting of alpha-beta-CROWN", name, (f"{path}{option}" for option in base)))
        if isinstance(base[key], dict) != isinstance(value, Mapping):
            kind = "a group of settings" if isinstance(base[key], dict) else "a value"
            raise UserError(f"Setting {name!r} of alpha-beta-CROWN is {value!r}; it must be {kind}.")
        if isinstance(value, Mapping):
            merge(base[key], value, f"{name}/")
        else:
            base[key] = value


def _select(d: dict[str, Any], keep: list[int]) -> dict[str, Any]:
    """Returns upstream's picked domains with those numbered in `keep` alone."""

    def part(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, Mapping):
            return {key: part(item) for key, item in value.items()}
        return value[keep] if isinstance(value, torch.Tensor) else [value[index] for index in keep]

    chosen = {key: part(value) for key, value in d.items() if key != "alphas"}
    # Slopes have the domains on their third axis.
    slopes = {key: {name: value[:, :, keep] for name, value in item.items()} for key, item in d["alphas"].items()}
    return {**chosen, "alphas": defaultdict(dict, slopes)}


class Engine:
    """The imported verifier with one configuration.

    Args:
        install: Which copy.
        device: ``"cpu"`` or ``"cuda"``; the current CUDA device is used.
        layers: Nested settings, later ones over earlier ones.

    Raises:
        UserError: A setting is unknown.
    """

    def __init__(self, install: Install, device: str, layers: list[Mapping[str, Any]]) -> None:
        import_torchvision()
        sys.path[:0] = install.paths
        self.api: Any = importlib.import_module("api")
        if Path(str(self.api.__file__)).resolve().parent != install.folder.resolve():
            raise ImportError(f"another module `api` hides alpha-beta-CROWN's: {self.api.__file__}")
        self.bab: Any = importlib.import_module("bab")
        self.split: Any = importlib.import_module("input_split.batch_branch_and_bound")
        self.specifications: Any = importlib.import_module("specifications")
        self.config: dict[str, Any] = self.api.default_config()
        self.config["general"]["device"] = device
        for layer in layers:
            merge(self.config, layer)
        self.device = device
        self._outcome = SearchEnd("", 0.0)
        self._observe()
        # Garbage is collected in each search; what the imports made need not be looked through each time.
        gc.freeze()

    def _observe(self) -> None:
        """Puts our eyes where upstream keeps things to itself."""

        def caught(adv_input: Any, _output: Any, _path: Any) -> None:
            self._outcome.witness = adv_input.detach().cpu().numpy()

        attack: Any = importlib.import_module("attack.attack_utils")
        attack.default_adv_saver = caught
        split_domain, input_round = self.bab.split_domain, self.split.batch_verification_input_split

        def one_round(net: Any, domains: Any, d: Any, batch: Any, stats: Any = None, **kwargs: Any) -> Any:
            self._outcome.iterations += 1
            remaining = self._without_leaves(net, d, stats)
            if remaining is None:
                return {}
            bounds = split_domain(net, domains, remaining, batch, stats=stats, **kwargs)
            # Upstream returns the bounds of the new domains, or a pair when no ReLU is left to split.
            self._outcome.exhausted |= isinstance(bounds, tuple)
            return bounds

        def one_input_round(*args: Any, **kwargs: Any) -> Any:
            self._outcome.iterations += 1
            return input_round(*args, **kwargs)

        self.bab.split_domain = one_round
        self.split.batch_verification_input_split = one_input_round
        bounded = importlib.import_module("auto_LiRPA").BoundedModule
        compute = bounded.compute_bounds

        def checked(*args: Any, **kwargs: Any) -> Any:
            bounds = compute(*args, **kwargs)
            for bound in bounds[:2]:
                if isinstance(bound, torch.Tensor) and bool(torch.isnan(bound).any()):
                    raise ArithmeticError("a bound is NaN")
            return bounds

        bounded.compute_bounds = checked

    def _without_leaves(self, net: Any, d: dict[str, Any], stats: Any) -> dict[str, Any] | None:
        """Decides the picked domains that have no unstable ReLU left; upstream would give up at the first.

        Returns:
            The other domains; None if there are none, or if a leaf holds a counterexample, which `stats` then has.
            All of them, for upstream to give up on, if a leaf stays open.
        """
        open_ = torch.stack([mask.flatten(1).any(dim=1) for mask in d["mask"].values()]).any(dim=0).cpu()
        leaves = torch.where(~open_)[0].tolist()
        only_relus = all(type(node).__name__ == "BoundRelu" for node in net.net.get_splittable_activations())
        if not leaves or not only_relus or net.x.ptb.norm != math.inf:
            return d
        box = (d["x_Ls"], d["x_Us"]) if d["x_Ls"] is not None else (net.x.ptb.x_L, net.x.ptb.x_U)
        for index in leaves:
            self._outcome.domains += 1
            at = index if len(box[0]) > 1 else 0
            try:
                point = leaf_lp.decide(
                    net.net,
                    {name: bound[index] for name, bound in d["lower_bounds"].items()},
                    {name: bound[index] for name, bound in d["upper_bounds"].items()},
                    d["history"][index],
                    (box[0][at : at + 1], box[1][at : at + 1]),
                    d["cs"][index],
                    d["thresholds"][index],
                )
            except leaf_lp.OpenLeafError as error:
                self._outcome.open_leaf = str(error)
                return d
            if point is not None:
                stats.all_node_split, stats.all_split_result, stats.counterexample = True, "unsafe", point
                return None
        keep = torch.where(open_)[0].tolist()
        return _select(d, keep) if keep else None

    def read_network(self, onnx: Path) -> tuple[Any, tuple[int, ...]]:
        """Converts an ONNX file, and compares the result with onnxruntime on random inputs.

        Returns:
            The torch module on the device and its input shape without the batch axis.

        Raises:
            RuntimeError: The outputs differ by more than 1e-4 of their scale.
        """
        with self.api._config_context(self.config):
            network, shape = self.api.load_model_onnx(str(onnx))
        network = network.to("cpu").eval()
        session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
        declared = session.get_inputs()[0]
        full = [n if isinstance(n, int) and n > 0 else 1 for n in declared.shape]
        rng = np.random.default_rng(0)
        for _ in range(3):
            x = rng.random(full, dtype=np.float32)
            expected = np.asarray(session.run(None, {declared.name: x})[0]).reshape(-1)
            with torch.no_grad():
                outputs = network(torch.from_numpy(x).reshape(1, *shape)).numpy().reshape(-1)
            if outputs.shape != expected.shape or not np.allclose(outputs, expected, rtol=1e-4, atol=1e-4):
                raise RuntimeError(f"alpha-beta-CROWN's conversion of {onnx.name} answers otherwise than onnxruntime")
        return network.to(self.device), tuple(shape)

    def solve(self, instance: Instance, network: Any, shape: tuple[int, ...], *, batch: int, split: bool) -> SearchEnd:
        """Runs one search; when CUDA runs out of memory, again with half the batch, within the same limit.

        Args:
            instance: The question.
            network: From `read_network`.
            shape: From `read_network`.
            batch: Most domains bounded together.
            split: Whether to split the input box instead of ReLUs.
        """
        config = copy.deepcopy(self.config)
        if split:
            # As upstream's `auto` sets it for small inputs.
            config["bab"]["branching"]["input_split"]["enable"] = True
            config["bab"]["branching"]["method"] = "sb"
            config["solver"]["bound_prop_method"] = "crown"
        if instance.norm == "l2":
            config["specification"]["norm"] = 2.0
            config["attack"]["pgd_order"] = "skip"
        begin = time.perf_counter()
        while True:
            self._outcome = SearchEnd("", 0.0, batch=batch)
            config["solver"]["batch_size"] = batch
            config["bab"]["timeout"] = max(0.1, instance.timeout - (time.perf_counter() - begin))
            try:
                result = self._solver(instance, network, shape, config).solve()
                break
            except torch.cuda.OutOfMemoryError:
                if batch <= 1:
                    raise
                batch //= 2
            gc.collect()
            torch.cuda.empty_cache()
        outcome = self._outcome
        outcome.word = str(result.status)
        outcome.seconds = time.perf_counter() - begin
        for _, _, domains, seconds in result.stats["bab"]:
            outcome.domains += int(domains)
            outcome.bab_seconds += float(seconds)
        count = getattr(result.reference.get("model"), "tot_ambi_nodes", None)
        outcome.unstable = None if count is None else int(count)
        del result
        gc.collect()
        return outcome

    def _solver(self, instance: Instance, network: Any, shape: tuple[int, ...], config: dict[str, Any]) -> Any:
        low = torch.from_numpy(instance.lower).reshape(1, *shape)
        high = torch.from_numpy(instance.upper).reshape(1, *shape)
        clauses = [(torch.from_numpy(a).float(), torch.from_numpy(b).float()) for a, b in instance.spec.disjuncts]
        spec = self.api.VerificationSpec.build_from_input_bounds(low, high, clauses)
        solver = self.api.ABCrownSolver(spec, network, config=config, name=instance.name)
        if instance.norm == "l2":
            assert instance.center is not None
            ball = {
                "X": torch.from_numpy(instance.center).reshape(1, *shape),
                "eps": float(instance.eps or 0.0),
                "norm": 2.0,
                "data_min": low,
                "data_max": high,
            }
            pairs = [(a.numpy(), b.numpy()) for a, b in clauses]
            solver._build_vnnlib_handler = lambda _: self.specifications.vnnlibHandler([(ball, pairs)], [-1, *shape])
        return solver

    @staticmethod
    def count_relus(network: Any, shape: tuple[int, ...], device: str) -> int:
        """Returns how many ReLUs one input passes."""
        total = 0

        def add(_module: Any, _inputs: Any, output: Any) -> None:
            nonlocal total
            total += math.prod(output.shape[1:])

        hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, torch.nn.ReLU)]
        with torch.no_grad():
            network(torch.zeros((1, *shape), device=device))
        for hook in hooks:
            hook.remove()
        return total
