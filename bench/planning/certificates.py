"""From a suite's `certify` to questions: which network is certified on which images, with which noise."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import Installed, Stage
from prunecert.bench.schema.certificates import VERIFIER, mismatch
from prunecert.hashing import digest
from prunecert.models import NOISE_OBJECTIVES
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, OutputSpec


@dataclass(frozen=True, eq=False)
class CertifyPlan(CellPlan):
    """The images that are certified: all of them, whatever the network itself makes of them.

    Its one stage is the smoothing verifier.
    """

    asks_all = True

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """Stands for all that decides a certificate but the image."""
        return tuple(
            digest([self.image_key, "certificate", s.version, s.settings_hash, s.timeout])[:20] for s in self.stages
        )

    def instance(self, position: int, stage: int) -> Instance:
        """Returns the question about one image: its box is all that noise may reach, and its radius is to be found."""
        image, label = self.data.images[position], int(self.data.labels[position])
        return Instance(
            onnx=self.export.path,
            onnx_sha256=self.export.sha256,
            lower=np.full_like(image, -np.inf),
            upper=np.full_like(image, np.inf),
            spec=OutputSpec.robustness(label, self.data.classes),
            timeout=self.stages[stage].timeout,
            name=f"{self.name} image {self.data.indices[position]}",
            label=label,
            classes=self.data.classes,
            eps=0.0,
            norm="l2",
            center=image,
        )

    def describe(self) -> dict[str, Any]:
        """Returns plain data for the session row of the cell."""
        (stage,), (key,) = self.stages, self.keys
        indices = self.data.indices[: self.images]
        return {
            "verifier": stage.verifier,
            "version": stage.version,
            "settings": dict(stage.settings),
            "settings_hash": stage.settings_hash,
            "timeout": stage.timeout,
            "device": stage.device,
            "key": key,
            "onnx_sha256": self.export.sha256,
            "images": self.images,
            "indices": None if np.array_equal(indices, np.arange(self.images)) else indices.tolist(),
            "trained_sigma": trained_sigma(self),
        }


def trained_sigma(plan: CellPlan) -> float | None:
    """Returns the standard deviation of the noise that the network was trained with; None: without noise."""
    return float(plan.cell.eps) if plan.cell.objective in NOISE_OBJECTIVES else None


def with_certificates(
    plans: Sequence[CellPlan], installed: Installed, tell: Callable[[str], None]
) -> tuple[tuple[CellPlan, ...], tuple[CertifyPlan, ...]]:
    """Makes the plans of certificates.

    Args:
        plans: The cells.
        installed: Which verifiers there are.
        tell: Takes a line about what is odd.

    Returns:
        The cells, those that are certified with a word on that for the session row, and what is to be certified.
    """
    plans_out, certified = [], []
    for plan in plans:
        certify_plan = _plan(plan, installed, tell)
        if certify_plan is not None:
            certified.append(certify_plan)
            plan = replace(plan, extra={**plan.extra, "certify": certify_plan.describe()})
        plans_out.append(plan)
    return tuple(plans_out), tuple(certified)


def _plan(plan: CellPlan, installed: Installed, tell: Callable[[str], None]) -> CertifyPlan | None:
    from prunecert.verifiers.process.inspection import check_supported

    certify = plan.protocol.certify
    if certify is None:
        return None
    export = plan.export
    if export.compaction is not None and export.compaction.domain is not None:
        # What does nothing for pixels in [0, 1] may do something for pixels with noise on them.
        export = replace(export, path=export.masked_path, sha256=export.masked_sha256, masked=None, compaction=None)
    trained = trained_sigma(plan)
    sigma = trained if certify.sigma is None else certify.sigma
    assert sigma is not None, "the suite's schema sees to it"
    adapter, available = VERIFIERS.get(VERIFIER), installed.of(VERIFIER)
    reason = available.hint or check_supported(adapter, export.path, "l2", "robustness")
    if reason:
        tell(f"{plan.cell.name}: {reason} It is not certified.")
        return None
    odd = mismatch(trained, sigma)
    if odd is not None:
        tell(f"WARNING: {plan.cell.name} is {odd}: the radii will be small.")
    stage = Stage(
        verifier=VERIFIER,
        kind=adapter.kind,
        version=available.version,
        source=available.source,
        settings=adapter.resolve(certify.settings(sigma)),
        timeout=certify.timeout,
        device=installed.device_of(VERIFIER),
        everyone=True,
        batch=1,
        memory_mb=plan.protocol.memory_mb,
    )
    return CertifyPlan(
        cell=plan.cell,
        protocol=plan.protocol,
        export=export,
        stages=(stage,),
        unsupported={},
        data=plan.data,
        images=min(certify.images or plan.protocol.images, len(plan.data)),
    )


def describe_certificates(plans: Sequence[CertifyPlan]) -> list[str]:
    """Returns one line a cell: how many images are certified, with what."""
    return [
        f"{plan.cell.name}: {plan.images} images certified by randomized smoothing, sigma {options['sigma']:g}, "
        f"{options['n0']} + {options['n']:,} samples, alpha {options['alpha']:g}"
        for plan in plans
        for options in [plan.stages[0].settings]
    ]
