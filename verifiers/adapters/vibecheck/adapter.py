"""Vibecheck (PyPI `vibecheck-nn`, second at VNN-COMP 2026), a complete verifier; tested with 1.1.0.

It is under the GPL and pins versions of onnx and onnxruntime, so it is neither imported nor installed beside this
program: the environment variable VIBECHECK_PYTHON names an interpreter that has it, and `serve.py` is run by that.

A proof rests on bounds in floating point without outward rounding, so it is given a property that leaves room for it
(`verifiers.rounding.guard`). Its limit is one that it looks at now and then, and what it says when that is reached is
`unknown`, which is `timeout` here; the worker kills it where it doesn't look. It attacks for up to 5 s before
any bound.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from prunecert.verifiers.adapters.hardware import visible_devices
from prunecert.verifiers.adapters.other_interpreter import OtherInterpreter, version_in
from prunecert.verifiers.adapters.vibecheck.question import extended, thresholds
from prunecert.verifiers.adapters.vibecheck.words import parse_status
from prunecert.verifiers.base import (
    Availability,
    Capabilities,
    Instance,
    Kind,
    Status,
    Times,
    Verdict,
    Verifier,
)
from prunecert.verifiers.formats.support import NORMAL_OPERATORS
from prunecert.verifiers.rounding import guard
from prunecert.verifiers.settings import Setting

VARIABLE = "VIBECHECK_PYTHON"
_SCRIPT = Path(__file__).with_name("serve.py")
_INSTALL = (
    "python -m venv vibecheck && vibecheck/bin/pip install vibecheck-nn, "
    f"and set {VARIABLE} to the path of vibecheck/bin/python"
)


class Vibecheck(Verifier):
    """Attack, CROWN and zonotopes, dual ascent and branch and bound, in an interpreter of its own."""

    name = "vibecheck"
    kind = Kind.COMPLETE
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "attack": Setting(default=True, help="looks for counterexamples before it bounds, for up to 5 s"),
    }
    recycle_after = 200
    tightens = True

    @classmethod
    def availability(cls) -> Availability:
        """Asks the interpreter that VIBECHECK_PYTHON names."""
        python = os.environ.get(VARIABLE, "")
        if not python:
            return Availability(False, hint=f"Vibecheck needs an interpreter of its own: {_INSTALL}")
        try:
            version = version_in(python, "vibecheck-nn")
        except OSError as error:
            return Availability(False, hint=f"{VARIABLE} is {python!r}, which can't be asked ({error}): {_INSTALL}")
        if version is None:
            return Availability(False, hint=f"{VARIABLE} is {python!r}, which has no Vibecheck: {_INSTALL}")
        return Availability(True, version, devices=visible_devices(), source=f"vibecheck-nn {version} (PyPI)")

    @classmethod
    def capabilities(cls) -> Capabilities:
        """Feed-forward ReLU networks; boxes; any linear output property in disjunctive normal form."""
        return Capabilities(operators=NORMAL_OPERATORS, specs="dnf")

    def start(self) -> None:
        """Starts the interpreter, and waits until it has imported Vibecheck.

        Raises:
            RuntimeError: It can't.
        """
        python = os.environ[VARIABLE]
        self._other = OtherInterpreter(python, _SCRIPT)
        reply = self._other.ask({"hello": True})
        if reply.get("word") != "ready":
            self._other.close()
            raise RuntimeError(f"{python} can't import Vibecheck: {reply.get('error', 'it does not say why')}")

    def load(self, onnx: Path) -> None:
        """Reads the file, to which each question's rows are added."""
        from prunecert.onnx.io import load_model

        self._model: Any = load_model(onnx)

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Runs one search an instance, two where the first ends within rounding of the threshold."""
        return [guard.search(instance, self._solve) for instance in instances]

    def _solve(self, instance: Instance) -> Verdict:
        if instance.norm != "linf":
            return Verdict(Status.UNSUPPORTED, f"Vibecheck takes boxes (linf), not {instance.norm} balls")
        if not self._other.running:
            self.start()
        with tempfile.TemporaryDirectory() as folder:
            network, text = Path(folder) / "network.onnx", Path(folder) / "property.vnnlib"
            network.write_bytes(extended(self._model, instance).SerializeToString())
            text.write_text(thresholds(instance), encoding="utf-8")
            begin = time.perf_counter()
            answer = self._other.ask(
                {
                    "onnx": str(network),
                    "property": str(text),
                    "timeout": instance.timeout,
                    "device": self.device.partition(":")[0],
                    "attack": self.settings["attack"],
                }
            )
            seconds = time.perf_counter() - begin
        status, detail = parse_status(answer.get("word"), str(answer.get("error", "")), seconds, instance.timeout)
        witness = None
        if status is Status.SAT:
            point = answer.get("witness")
            if not isinstance(point, list) or len(point) != instance.lower.size:
                return Verdict(Status.ERROR, "Vibecheck ended with 'sat' but gave no point of the input set")
            witness = np.asarray(point, dtype=np.float32).reshape(instance.lower.shape)
        return Verdict(
            status,
            detail,
            witness=witness,
            times=Times(search_s=seconds),
            stage="bab" if status.decided else None,
            device=self.device,
        )
