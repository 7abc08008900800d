"""NeuralSAT's verifier class, made fit for one process and many instances; imported in the worker only.

NeuralSAT (Duong et al., "NeuralSAT: A High-Performance Verification Tool for Deep Neural Networks", CAV 2025) comes
as the package `src`, whose modules import each other as top-level ones. What is changed here, and why:

* disjuncts go through branch and bound one by one: after a restart has dropped some disjuncts of a batch, upstream's
  recovery from CUDA out-of-memory puts back the last ones of the batch instead of the remaining ones;
* a NaN bound is an error: upstream drops every domain of which ``bound <= threshold`` is false, which NaN satisfies;
* a domain whose ReLUs are all fixed is decided by `verifiers.adapters.leaf_lp`: upstream uses Gurobi, whose free
  licence stops at 2,000 variables, and takes any other end than "optimal" for infeasible;
* the attack comes after the first bounds, on the disjuncts that they leave: an easy proof waits for none;
* presolving and tightening by Gurobi's MIP are off, for the same licence.
"""

from __future__ import annotations

import copy
import gc
import importlib
import importlib.util
import math
import random
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import prunecert.verifiers.formats.onnx_torch
from prunecert.onnx.io import load_model
from prunecert.verifiers.adapters import leaf_lp
from prunecert.verifiers.base import Instance
from prunecert.vision import import_torchvision

import_torchvision()
_spec = importlib.util.find_spec("src")
if _spec is None or _spec.origin is None or not (Path(_spec.origin).parent / "abstractor").is_dir():
    raise ImportError("the package `src` is not NeuralSAT's; another package of that name hides it")
# Its modules import each other as top-level modules.
sys.path.insert(0, str(Path(_spec.origin).parent))

logger = importlib.import_module("helper.misc.logger").logger
read_onnx = importlib.import_module("helper.network.read_onnx")
_objective = importlib.import_module("helper.spec.objective")
Settings = importlib.import_module("setting").Settings
Upstream: Any = importlib.import_module("verifier.verifier").Verifier

# Upstream collects garbage a dozen times a search; what the imports made need not be looked through each time.
gc.freeze()

_QUIRKS = copy.deepcopy(read_onnx.custom_quirks)


def read_network(onnx: Path) -> tuple[Any, tuple[int, ...]]:
    """Converts a network in normal form; by `verifiers.formats.onnx_torch` where upstream's converter fails.

    Upstream's converts what it can, and compares the result with onnxruntime on random inputs.

    Returns:
        The torch module and its input shape, batch axis first.

    Raises:
        UnsupportedError: The file is not in normal form.
    """
    if any(node.op_type == "AveragePool" for node in load_model(onnx).graph.node):
        # Its bounds fail on some average pools after convolutions ("view size is not compatible").
        return _own_network(onnx)
    # Upstream's quirks are global and change with each network. It retries for ever; four rounds see all quirks.
    read_onnx.custom_quirks.clear()
    read_onnx.custom_quirks.update(copy.deepcopy(_QUIRKS))
    for _ in range(4):
        try:
            network, shape, _ = read_onnx._parse_onnx(str(onnx))
        except read_onnx.OnnxMergeBatchNormError:
            read_onnx.custom_quirks["Conv"]["merge_batch_norm"] = False
        except read_onnx.OnnxOutputAllCloseError:
            # Its tolerance is absolute: large outputs fail it. The worker compares again, relative to their scale.
            break
        except read_onnx.OnnxConversionError:
            read_onnx.custom_quirks["Reshape"]["fix_batch_size"] = True
        except Exception as error:
            logger.debug(f"upstream can't convert {onnx.name}: {error!r}")
            break
        else:
            return network, tuple(shape)
    return _own_network(onnx)


def _own_network(onnx: Path) -> tuple[Any, tuple[int, ...]]:
    # No layer was left out at the end, which upstream would take for granted.
    for operator in ("Softmax", "Squeeze"):
        read_onnx.custom_quirks[operator]["skip_last_layer"] = False
    module = prunecert.verifiers.formats.onnx_torch.read_onnx(onnx, averages_as_convolutions=True)
    return module, (1, *module.input_shape)


def read_instance(instance: Instance, shape: tuple[int, ...]) -> Any:
    """Translates box and unsafe set: exact float32 corners, no VNN-LIB text in between."""
    box = np.stack([instance.lower.reshape(-1), instance.upper.reshape(-1)], axis=1).astype(np.float64).tolist()
    rows = max(len(b) for _, b in instance.spec.disjuncts)
    objectives = []
    for a, b in instance.spec.disjuncts:
        # Upstream wants disjuncts of equal length: repeating a row changes nothing.
        pad = np.full(rows - len(b), len(b) - 1)
        keep = np.concatenate([np.arange(len(b)), pad]).astype(int)
        objectives.append(_objective.Objective((box, (a[keep], b[keep]))))
    return _objective.DnfObjectives(objectives, input_shape=shape)


def configure(*, attack: bool, restart: bool, seed: int) -> None:
    """Sets upstream's global settings anew: a run changes them."""
    Settings.setup(
        SimpleNamespace(
            disable_attack=attack, disable_restart=restart, disable_stabilize=False, setting_file=None
        )  # upstream's flags are stored inverted: disable_attack=True means that it attacks
    )
    Settings.use_mip_verify = Settings.use_mip_tightening = Settings.use_mip_attack = False
    logger.setLevel("INFO")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Engine(Upstream):  # type: ignore[misc]
    """One search; attributes beyond upstream's tell what happened in it.

    Args:
        net: Network from `read_network`, on the device.
        input_shape: Its input shape.
        batch: Most domains bounded together.
        device: ``"cpu"`` or ``"cuda"``.
        relus: ReLUs of the network.
        attack_seconds: Limit of the attack between the first bounds and the search.
    """

    def __init__(
        self, net: Any, input_shape: tuple[int, ...], batch: int, device: str, *, relus: int, attack_seconds: float
    ) -> None:
        self.relus = relus
        self.attack_seconds = attack_seconds
        self.bound_s = 0.0
        self.unstable: int | None = None
        self.attacked = False
        self.failure = ""
        self.open_leaf = False
        self.overflows = False
        super().__init__(net=net, input_shape=input_shape, batch=batch, device=device)

    def get_objective(self, dnf_objectives: Any, max_domain: int) -> Any:
        """Hands out one disjunct at a time, whatever upstream asks for."""
        return super().get_objective(dnf_objectives, 1)

    def _pre_attack(self, dnf_objectives: Any, timeout: float = 10.0) -> tuple[bool, Any]:
        """Puts the attack off until the first bounds are known: what they prove needs none."""
        self._attack_limit = min(timeout, self.attack_seconds)
        return False, None

    def _preprocess(self, objectives: Any, force_split: str | None = None) -> tuple[Any, Any]:
        tic = time.perf_counter()
        try:
            self._remaining, reference = super()._preprocess(objectives, force_split=force_split)
            return self._remaining, reference
        finally:
            self.bound_s += time.perf_counter() - tic

    def _mip_attack(self, reference_bounds: Any) -> tuple[bool, Any]:
        """Runs the attack at the place of upstream's unfinished one by MIP, on the disjuncts that are left."""
        tic = time.perf_counter()
        breaks, point = super()._pre_attack(copy.deepcopy(self._remaining), timeout=self._attack_limit)
        self.attacked = breaks
        self.bound_s += time.perf_counter() - tic
        return breaks, point

    def _init_abstractor(self, method: str, objective: Any, extra_opts: Any = None, preprocess: bool = False) -> None:
        try:
            super()._init_abstractor(method, objective, extra_opts or {}, preprocess=preprocess)
        except NotImplementedError:
            self.failure, self.overflows = self._why_unbounded(objective)
            raise
        compute = self.abstractor.net.compute_bounds

        def checked(*args: Any, **kwargs: Any) -> Any:
            bounds = compute(*args, **kwargs)
            if bounds[0] is not None and bool(torch.isnan(bounds[0]).any()):
                self.failure = "a bound is NaN"
                raise ArithmeticError(self.failure)
            return bounds

        self.abstractor.net.compute_bounds = checked

    def _why_unbounded(self, objective: Any) -> tuple[str, bool]:
        """Bounds the network once more and returns what goes wrong, and whether that is a number out of range.

        Upstream tries a dozen ways to bound a network, and says no more than that none worked.
        """
        corners = (objective.lower_bounds, objective.upper_bounds)
        low, high = (corner[0].view(self.input_shape).to(self.device) for corner in corners)
        try:
            points = self.abstractor.new_input(x_L=low, x_U=high)
            lower, _ = self.abstractor.net.compute_bounds(x=(points,), method="backward", bound_upper=False)
        except Exception as error:
            return f"its bounds fail with {error!r}", False
        if torch.isfinite(lower).all():
            return "its bounds fail only as they are optimised", False
        return "NeuralSAT's bounds of this network are no numbers: they leave the range of float32", True

    def _setup_restart(self, nth_restart: int, objective: Any) -> Any:
        bounds = super()._setup_restart(nth_restart, objective)
        # Upstream asks for that many best ReLUs even where there are fewer.
        self.decision.decision_topk = min(self.decision.decision_topk, max(self.relus, 1))
        return bounds

    def _initialize(self, objective: Any, preconditions: Any, reference_bounds: Any) -> Any:
        domains = super()._initialize(
            objective=objective, preconditions=preconditions, reference_bounds=reference_bounds
        )
        if self.unstable is None and not isinstance(domains, list):
            count = domains.count_unstable_neurons()
            self.unstable = None if count is None else int(count)
        return domains

    def _check_full_assignment(self, domain_params: Any) -> tuple[Any, Any]:
        """Decides the picked domains that have no unstable ReLU left; the others go on."""
        if self.input_split or domain_params.lower_bounds is None or None in self.abstractor.split_points:
            return None, None
        open_ = torch.zeros(len(domain_params.cs), dtype=torch.bool)
        for name, low in domain_params.lower_bounds.items():
            high = domain_params.upper_bounds[name]
            open_ |= ((low < 0) & (high > 0)).flatten(1).any(dim=1).cpu()
        leaves = torch.where(~open_)[0]
        if not len(leaves):
            return None, None
        for index in leaves.tolist():
            point = self._leaf(domain_params, index)
            if point is not None:
                return point, None
            identity = int(domain_params.objective_ids[index])
            self.domains_list.all_conflict_clauses[identity].append(domain_params.histories[index])
        return None, torch.where(open_)[0]

    def _leaf(self, params: Any, index: int) -> Any:
        """Decides one of them: None, or a counterexample."""
        try:
            return leaf_lp.decide(
                self.abstractor.net,
                {name: bound[index] for name, bound in params.lower_bounds.items()},
                {name: bound[index] for name, bound in params.upper_bounds.items()},
                params.histories[index],
                (params.input_lowers[index : index + 1], params.input_uppers[index : index + 1]),
                params.cs[index],
                params.rhs[index],
            )
        except leaf_lp.OpenLeafError as error:
            self.failure, self.open_leaf = str(error), True
            raise


def count_relus(network: Any, shape: tuple[int, ...]) -> int:
    """Returns how many ReLUs one input passes."""
    total = 0

    def add(_module: Any, _inputs: Any, output: Any) -> None:
        nonlocal total
        total += math.prod(output.shape[1:])

    hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, torch.nn.ReLU)]
    with torch.no_grad():
        network(torch.zeros(shape))
    for hook in hooks:
        hook.remove()
    return total
