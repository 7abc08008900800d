"""Answers questions with the verifiers of whatever state of this program is on the path; run by `revisions`.

It imports nothing of this state at its top: what it asks for is there in all states since there is a package
prunecert; verifiers once lay beside it. A request is a line of JSON: ``{"verifier", "tree"}`` first, then ``{"load"}``
with an ONNX file, and ``{"box", "label", "classes", "timeout"}`` with a file of NumPy's that has both corners. Each is
answered by a line, with ``error`` where it fails.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO


class Answering:
    """The verifier that is asked."""

    def __init__(self) -> None:
        self._adapter: Any = None
        self._package = ""
        self._onnx = Path()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answers one request."""
        if "verifier" in request:
            return self._start(request["verifier"], Path(request["tree"]))
        if "load" in request:
            self._onnx = Path(request["load"])
            self._adapter.load(self._onnx)
            return {}
        return self._solve(request)

    def _start(self, name: str, tree: Path) -> dict[str, Any]:
        self._package = "prunecert.verifiers" if (tree / "prunecert" / "verifiers").is_dir() else "verifiers"
        # What the state lacks must not be taken from another one that is installed here.
        for package in ("prunecert", self._package, f"{self._package}.base"):
            place = Path(str(importlib.import_module(package).__file__)).resolve()
            if not place.is_relative_to(tree):
                raise ImportError(f"{package} was imported from {place.parent}, not from {tree}")
        self._adapter = importlib.import_module(self._package).VERIFIERS.get(name)()
        self._adapter.start()
        return {}

    def _solve(self, request: dict[str, Any]) -> dict[str, Any]:
        numpy, base = importlib.import_module("numpy"), importlib.import_module(f"{self._package}.base")
        with numpy.load(request["box"]) as box:
            lower, upper = box["lower"], box["upper"]
        question = base.Instance(
            onnx=self._onnx,
            onnx_sha256="",
            lower=lower,
            upper=upper,
            spec=base.OutputSpec.robustness(request["label"], request["classes"]),
            timeout=request["timeout"],
            label=request["label"],
            classes=request["classes"],
        )
        wall, cpu = time.perf_counter(), time.process_time()
        (verdict,) = self._adapter.solve([question])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        detail = str(verdict.detail)
        return {"status": str(verdict.status), "domains": verdict.domains, "detail": detail, "cpu": cpu, "wall": wall}


def main() -> None:
    """Answers requests until they end."""
    # What libraries print, in C as well, must not get among the answers.
    replies: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    adapter = Answering()
    for line in sys.stdin:
        try:
            reply = adapter.answer(json.loads(line))
        except Exception as error:
            # An older state may lack anything; that is said, and the next request may be another one.
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
