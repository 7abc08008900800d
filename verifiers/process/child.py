"""The worker process's side of `verifiers.process.worker`: reads requests, drives one adapter, answers in plain data.

Frames on the pipes are a magic word, a length, a CRC-32 and a pickle. Requests hold our own classes; answers hold
only built-in types and bytes, and the parent's reader refuses anything else, so that nothing that a verifier makes up
is ever executed or imported in the parent.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import struct
import sys
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from prunecert.errors import UserError
from prunecert.verifiers.base import Instance, Status, UnsupportedError, Verdict, Verifier
from prunecert.verifiers.certificate import Certificate
from prunecert.verifiers.certification import Certifying

if TYPE_CHECKING:
    from prunecert.verifiers.process.reading import FileReading

MAGIC = b"PCw1"
HEADER = struct.Struct("<4sQI")
_MEMORY_WORDS = ("out of memory", "std::bad_alloc", "can't allocate memory", "cannot allocate memory")


def frame(message: Any) -> bytes:
    """Returns a message as it goes over the pipe."""
    payload = pickle.dumps(message, protocol=5)
    return HEADER.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload


def peak_memory_mb() -> float | None:
    """Returns this process's peak resident size in MiB, or None where the system doesn't say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def is_memory_error(error: BaseException) -> bool:
    """Whether host or device memory ran out."""
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _MEMORY_WORDS)


def switch_tf32_off() -> None:
    """Makes CUDA matrix products and convolutions use full float32, if torch is loaded."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def encode(verdict: Any) -> dict[str, Any]:
    """Turns a verdict into plain data.

    Raises:
        TypeError: It is no `Verdict`, or a field has a type that it must not have.
        ValueError: A field can't be converted.
    """
    if not isinstance(verdict, Verdict):
        raise TypeError(f"the verifier returned {type(verdict).__name__} {verdict!r:.80} where a Verdict belongs")
    if not isinstance(verdict.status, Status):
        raise TypeError(f"the verifier returned the status {verdict.status!r:.80}, which is none")
    witness = verdict.witness
    if witness is not None and not isinstance(witness, np.ndarray):
        raise TypeError(f"the verifier returned a witness of type {type(witness).__name__}; it must be an array")
    if witness is not None and witness.dtype != np.float32:
        raise TypeError(f"the verifier returned a witness of type {witness.dtype}; it must be float32")
    if verdict.certificate is not None and not isinstance(verdict.certificate, Certificate):
        raise TypeError(f"the verifier returned a certificate of type {type(verdict.certificate).__name__}")
    times = verdict.times
    return {
        "status": str(verdict.status),
        "detail": str(verdict.detail),
        "witness": None if witness is None else (tuple(int(n) for n in witness.shape), witness.tobytes()),
        "bounds": None if verdict.bounds is None else tuple(float(bound) for bound in verdict.bounds),
        "bound_s": float(times.bound_s),
        "search_s": float(times.search_s),
        "stage": None if verdict.stage is None else str(verdict.stage),
        "unstable": None if verdict.unstable is None else int(verdict.unstable),
        "domains": None if verdict.domains is None else int(verdict.domains),
        "iterations": None if verdict.iterations is None else int(verdict.iterations),
        "certificate": None if verdict.certificate is None else _plain(verdict.certificate),
        "device": str(verdict.device),
        "version": str(verdict.version),
    }


def _plain(certificate: Certificate) -> dict[str, int | float]:
    """Turns a certificate's numbers, which may be NumPy's, into Python's."""
    whole = ("predicted", "count", "n0", "n")
    return {key: int(value) if key in whole else float(value) for key, value in certificate.to_json().items()}


def describe(error: BaseException) -> dict[str, Any]:
    """Turns an exception into plain data."""
    text = str(error).strip()
    if is_unsupported(error):
        return {"ok": False, "kind": "unsupported", "text": text}
    if is_memory_error(error):
        return {"ok": False, "kind": "memory", "text": f"{type(error).__name__}: {text}"}
    # A refusal is one sentence already.
    return {
        "ok": False,
        "kind": "error",
        "text": text if isinstance(error, UserError) else f"{type(error).__name__}: {text}",
    }


def is_unsupported(error: BaseException) -> bool:
    """Whether an adapter, or the making of the normal form, says that it doesn't take this network or property."""
    if isinstance(error, UnsupportedError):
        return True
    # Nothing raised it where it was never imported.
    module = sys.modules.get("prunecert.onnx.normal")
    return module is not None and isinstance(error, module.UnsupportedNetworkError)


class Server:
    """Answers requests with one adapter."""

    def __init__(self) -> None:
        self.verifier: Verifier | None = None
        self.reading: FileReading | None = None
        #: What the questions about the normal form were asked as, where that is another file.
        self.translated: dict[str, str] = {}

    def start(self, module: str, qualname: str, settings: dict[str, Any], device: str) -> dict[str, Any]:
        """Imports and makes the adapter."""
        target: Any = importlib.import_module(module)
        for part in qualname.split("."):
            target = getattr(target, part)
        verifier: Verifier = target(settings, device)
        verifier.start()
        switch_tf32_off()
        self.verifier = verifier
        return {"ok": True}

    def inspect(self, onnx: str, keep: Sequence[str], outputs: int | None) -> dict[str, Any]:
        """Says what the normal form of a network holds; needs no adapter."""
        from prunecert.onnx.io import load_model
        from prunecert.onnx.normalise import normalise
        from prunecert.verifiers.process.reading import operators_of

        normal = normalise(load_model(Path(onnx)), outputs=outputs, keep=frozenset(keep))
        return {"ok": True, "operators": operators_of(normal), "outputs": int(normal.outputs), "last": str(normal.last)}

    def read(self, onnx: str, sha256: str, outputs: int, folder: str) -> dict[str, Any]:
        """Makes the normal form of a network, for `load`; it goes into the folder if it is another file."""
        from prunecert.verifiers.formats.support import unknown_operator
        from prunecert.verifiers.process.reading import FileReading

        assert self.verifier is not None
        begin = time.perf_counter()
        if self.reading is not None:
            self.reading.discard()
        self.reading = None
        reading = FileReading(Path(onnx), sha256, outputs, self.verifier.capabilities(), Path(folder))
        refusal = unknown_operator(type(self.verifier), reading.operators, Path(onnx).name)
        if refusal is not None and reading.normal:
            raise UnsupportedError(refusal)
        self.reading, self.translated = reading, {}
        return {"ok": True, "read_s": time.perf_counter() - begin}

    def load(self) -> dict[str, Any]:
        """Has the adapter load the network that was read."""
        assert self.verifier is not None
        assert self.reading is not None
        switch_tf32_off()
        begin = time.perf_counter()
        self.verifier.load(self.reading.path)
        return {"ok": True, "load_s": time.perf_counter() - begin}

    def solve(self, instances: Sequence[Instance]) -> dict[str, Any]:
        """Solves one batch; an instance whose property doesn't fit the normal form is answered without the adapter."""
        assert self.verifier is not None
        assert self.reading is not None
        switch_tf32_off()
        answers: list[dict[str, Any] | None] = []
        questions: list[Instance] = []
        for instance in instances:
            try:
                question = self.reading.translate(instance)
                if question is not instance:
                    self.translated[instance.question()] = question.question()
                questions.append(question)
                answers.append(None)
            except UnsupportedError as error:
                answers.append(encode(Verdict(Status.UNSUPPORTED, str(error))))
        fitting = [instance for instance, answer in zip(instances, answers, strict=True) if answer is None]
        verdicts = iter(self._solve(fitting, questions) if fitting else [])
        return {
            "ok": True,
            "verdicts": [next(verdicts) if answer is None else answer for answer in answers],
            "peak_mb": peak_memory_mb(),
        }

    def _solve(self, originals: Sequence[Instance], questions: Sequence[Instance]) -> list[dict[str, Any]]:
        """Asks the adapter, and takes its answers back to the network as it was given.

        Args:
            originals: The questions as the parent put them.
            questions: The same about the normal form.
        """
        assert self.verifier is not None
        assert self.reading is not None
        self.reading.compare(originals[0], self.verifier.evaluate)
        verdicts: Any = self.verifier.solve(questions)
        if not isinstance(verdicts, list | tuple):
            raise TypeError(f"the verifier returned {type(verdicts).__name__} where a list of verdicts belongs")
        if len(verdicts) != len(questions):
            raise ValueError(f"the verifier returned {len(verdicts)} verdicts for {len(questions)} instances")
        plain = []
        for instance, verdict in zip(originals, verdicts, strict=True):
            # First the types: what follows relies on them.
            encode(verdict)
            plain.append(encode(self.reading.settle(instance, verdict, self.verifier.evaluate)))
        return plain

    def certify(
        self,
        onnx: str,
        vnnlib: bytes,
        timeout: float,
        witness: tuple[tuple[int, ...], bytes] | None,
        questions: Sequence[str],
    ) -> dict[str, Any]:
        """Has the adapter certify an answer about the network that was loaded."""
        adapter: object = self.verifier
        if not isinstance(adapter, Certifying):
            raise UnsupportedError(f"{getattr(adapter, 'name', 'nobody')} writes no certificates")
        point = None if witness is None else np.frombuffer(witness[1], dtype=np.float32).reshape(witness[0])
        asked_as = [self.translated.get(question, question) for question in questions]
        written, content = adapter.certify(Path(onnx), vnnlib, timeout, point, asked_as)
        return {"ok": True, "written": asdict(written), "content": content}

    def answer(self, request: tuple[str, tuple[Any, ...]]) -> dict[str, Any]:
        """Answers any request; an exception becomes an answer."""
        action, arguments = request
        try:
            handlers: dict[str, Callable[..., dict[str, Any]]] = {
                "start": self.start,
                "inspect": self.inspect,
                "read": self.read,
                "load": self.load,
                "solve": self.solve,
                "certify": self.certify,
            }
            reply = handlers[action](*arguments)
        except BaseException as error:
            # Whatever an adapter raises, SystemExit included, is its failure and not the worker's end.
            reply = describe(error)
            if isinstance(error, UserError) or reply["kind"] == "unsupported":
                print(reply["text"], file=sys.stderr)
            else:
                traceback.print_exc()
            del error
            if reply["kind"] == "memory":
                gc.collect()
                torch = sys.modules.get("torch")
                if torch is not None and torch.cuda.is_available():
                    torch.cuda.empty_cache()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        return reply


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def serve(request_fd: int, reply_fd: int) -> None:
    """Answers requests until the parent closes its end."""
    os.set_inheritable(request_fd, False)
    os.set_inheritable(reply_fd, False)
    server = Server()
    with os.fdopen(request_fd, "rb") as requests, os.fdopen(reply_fd, "wb") as replies:
        while True:
            try:
                _, length, _ = HEADER.unpack(_read_exactly(requests, HEADER.size))
                request = pickle.loads(_read_exactly(requests, length))  # noqa: S301 - our own parent's
            except EOFError:
                return
            replies.write(frame(server.answer(request)))
            replies.flush()
