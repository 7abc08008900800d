"""Randomized smoothing (Cohen et al. 2019, arXiv 1902.02918): l2 radii that hold with probability 1 - alpha.

CERTIFY of the paper's section 3.2.2: the class that leads among `n0` noisy copies of the image is the candidate; `n`
more copies give a lower bound of its probability, and the bound a radius, or the classifier abstains. What is claimed:
`verifiers.certificate`. The answer is `unknown` always, with the certificate beside it.

The base classifier is the network in float32, its argmax with ties to the lower class. The noise is float32 from
torch's generator on the device, so that a repetition gives the same certificate on the same kind of device; what an
ideal Gaussian would give differs by float rounding, which this method, as all its implementations, neglects.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import prunecert
from prunecert.hashing import digest
from prunecert.verifiers.adapters.hardware import first_missing, visible_devices
from prunecert.verifiers.adapters.torch_adapter import TorchVerifier
from prunecert.verifiers.base import Availability, Capabilities, Instance, Kind, Status, Times, Verdict
from prunecert.verifiers.certificate import certificate
from prunecert.verifiers.formats.support import OPERATORS
from prunecert.verifiers.settings import Setting

if TYPE_CHECKING:
    import torch

#: Samples that are drawn in one go, whatever `batch` is, so that it does not decide which noise is drawn.
_DRAW = 100
_MOST = 2**31 - 1


class _OutOfTimeError(Exception):
    pass


class Smoothing(TorchVerifier):
    """Certificates for instances with the norm ``"l2"``, whose centre is the image; their box and `eps` don't enter."""

    name = "smoothing"
    kind = Kind.PROBABILISTIC
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "sigma": Setting(
            default=0.25,
            above=0,
            at_most=_MOST,
            help="standard deviation of the noise, in pixels of [0, 1]; the network should be trained with the same",
        ),
        "n0": Setting(default=100, above=0, at_most=_MOST, help="samples for choosing the class"),
        "n": Setting(
            default=1000,
            above=0,
            at_most=_MOST,
            help="samples for estimating its probability; the paper takes 100,000",
        ),
        "alpha": Setting(default=0.001, above=0, below=1, help="probability with which a certificate may be wrong"),
        "batch": Setting(
            default=500,
            above=0,
            at_most=_MOST,
            help="samples in a pass through the network: more is faster as long as memory lasts",
        ),
        "seed": Setting(
            default=0,
            at_least=0,
            help="of the noise; an image's noise depends on it, on the instance and on sigma, and on nothing else",
        ),
    }

    @classmethod
    def availability(cls) -> Availability:
        """Looks for torch, whose generator decides the noise and so is part of the version."""
        if first_missing("torch") is not None:
            return Availability(False, hint="torch is missing: python -m pip install torch")
        version = importlib.metadata.version("torch")
        return Availability(
            True, f"{prunecert.__version__} (torch {version})", devices=visible_devices(), source="prunecert"
        )

    @classmethod
    def capabilities(cls) -> Capabilities:
        """What the ONNX reader takes, l2 balls, a label against all others."""
        return Capabilities(operators=OPERATORS, norms=("l2",))

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Certifies one image after the other."""
        return [self._certify(instance) for instance in instances]

    def _certify(self, instance: Instance) -> Verdict:
        begin = time.perf_counter()
        options = self.settings
        generator = self._torch.Generator(self._target).manual_seed(self.noise_seed(instance))
        until = begin + instance.timeout
        try:
            first = self._count(instance, options["n0"], generator, until)
            predicted = int(first.argmax())
            second = self._count(instance, options["n"], generator, until)
        except _OutOfTimeError:
            spent = Times(bound_s=time.perf_counter() - begin)
            return Verdict(Status.TIMEOUT, "out of time before the last sample", times=spent, device=self._label)
        claim = certificate(
            predicted,
            int(second[predicted]),
            n0=options["n0"],
            n=options["n"],
            alpha=options["alpha"],
            sigma=options["sigma"],
        )
        return Verdict(
            Status.UNKNOWN,
            f"abstained: class {predicted} in {claim.count} of {claim.n} samples"
            if claim.abstained
            else f"class {predicted} within an l2 radius of {claim.radius:.4g}",
            times=Times(bound_s=time.perf_counter() - begin),
            certificate=claim,
            device=self._label,
        )

    def noise_seed(self, instance: Instance) -> int:
        """Returns the seed of an instance's noise; its time limit has no part in it."""
        question = replace(instance, timeout=1.0).digest()
        return int(digest([question, self.settings["sigma"], self.settings["seed"]])[:15], 16)

    def _count(self, instance: Instance, n: int, generator: torch.Generator, until: float) -> torch.Tensor:
        """Returns how often each class wins, int64 [classes], among `n` noisy copies of the image.

        Raises:
            RuntimeError: A logit is not finite.
            _OutOfTimeError: The time is over.
        """
        center = self._torch.from_numpy(instance.center).to(self._target).reshape(1, *self._module.input_shape)
        batch, sigma = self.settings["batch"], self.settings["sigma"]
        drawn = min(max(batch // _DRAW, 1), -(-n // _DRAW)) * _DRAW
        noise = self._torch.empty((drawn, *self._module.input_shape), device=self._target)
        counts: torch.Tensor = self._torch.zeros(instance.classes, dtype=self._torch.int64)
        for start in range(0, n, drawn):
            for i in range(0, drawn, _DRAW):
                noise[i : i + _DRAW].normal_(generator=generator)
            for part in self._torch.split(noise[: n - start], batch):
                if time.perf_counter() > until:
                    raise _OutOfTimeError
                with self._torch.inference_mode():
                    logits = self._module(center + sigma * part)
                    if not bool(self._torch.isfinite(logits).all()):
                        raise RuntimeError("the network gives logits that are not finite")
                    counts += self._torch.bincount(logits.argmax(dim=1).cpu(), minlength=instance.classes)
        return counts
