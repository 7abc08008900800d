"""The worker's side: answers are plain data whatever the adapter does, and only what fits reaches the adapter."""

from __future__ import annotations

import os
import pickle
import threading
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.onnx.normal import UnsupportedNetworkError
from prunecert.verifiers.base import (
    Capabilities,
    FloatArray,
    Instance,
    Kind,
    OutputSpec,
    Status,
    Times,
    UnsupportedError,
    Verdict,
    Verifier,
)
from prunecert.verifiers.certificate import certificate
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.formats.support import NORMAL_OPERATORS
from prunecert.verifiers.process.child import (
    HEADER,
    MAGIC,
    Server,
    describe,
    encode,
    frame,
    is_memory_error,
    peak_memory_mb,
    serve,
)
from tests.verifiers import onnxnets
from tests.verifiers.process.test_reading import question, softmax

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


class Steady(Verifier):
    """Says what its class variable says, once for each question, and counts what it was asked."""

    name = "steady"
    kind = Kind.COMPLETE
    answer: Any = None
    questions: Sequence[Instance] = ()

    @classmethod
    def capabilities(cls) -> Capabilities:
        return Capabilities(operators=NORMAL_OPERATORS, specs="dnf")

    def load(self, onnx: Path) -> None:
        self.onnx = onnx

    def evaluate(self, points: FloatArray) -> npt.NDArray[Any] | None:
        return counterexample.outputs(self.onnx, points)

    def solve(self, instances: Sequence[Instance]) -> Any:
        type(self).questions = instances
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer if self.answer is not None else [Verdict(Status.UNKNOWN) for _ in instances]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(Steady, "questions", ())
    subject = Server()
    assert subject.start(Steady.__module__, Steady.__qualname__, {}, "cpu") == {"ok": True}
    return subject


def read(server: Server, instance: Instance, folder: Path) -> dict[str, Any]:
    reply = server.answer(("read", (str(instance.onnx), instance.onnx_sha256, instance.classes, str(folder))))
    return reply if not reply["ok"] else server.answer(("load", ()))


@settings(deadline=None, max_examples=40)
@given(plain)
def test_a_frame_tells_its_length_and_its_sum(message: Any) -> None:
    data = frame(message)
    magic, length, checksum = HEADER.unpack_from(data)
    payload = data[HEADER.size :]
    assert (magic, length, checksum) == (MAGIC, len(payload), zlib.crc32(payload))
    assert pickle.loads(payload) == message


def types(value: Any) -> set[type]:
    if isinstance(value, dict):
        return {dict}.union(*map(types, value), *map(types, value.values()))
    return {type(value)}.union(*map(types, value)) if isinstance(value, list | tuple) else {type(value)}


def test_a_verdict_goes_over_as_built_in_types() -> None:
    number: Any = np.float64(0.5)
    claim = certificate(3, 90, n0=10, n=100, alpha=0.001, sigma=0.25)
    verdict = Verdict(
        Status.UNKNOWN,
        "why",
        witness=np.arange(4, dtype=np.float32).reshape(2, 2),
        bounds=(number, np.float32(2)),  # type: ignore[arg-type]
        times=Times(bound_s=number, search_s=number),
        stage=np.str_("bab"),
        unstable=np.int64(3),  # type: ignore[arg-type]
        domains=np.int32(4),  # type: ignore[arg-type]
        iterations=5,
        certificate=replace(claim, count=np.int64(90), sigma=np.float32(0.25)),  # type: ignore[arg-type]
    )
    data = encode(verdict)
    assert types(data) <= {dict, tuple, str, int, float, bytes, type(None)}
    assert data["witness"] == ((2, 2), np.arange(4, dtype=np.float32).tobytes())
    assert data["bounds"] == (0.5, 2.0)
    assert data["certificate"] == claim.to_json()
    assert (data["unstable"], data["domains"], data["iterations"]) == (3, 4, 5)
    assert (data["status"], data["detail"], data["stage"], data["bound_s"]) == ("unknown", "why", "bab", 0.5)


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        ("unsat", "str 'unsat' where a Verdict belongs"),
        (None, "NoneType None where a Verdict belongs"),
        (Verdict("unsat"), "the status 'unsat', which is none"),  # type: ignore[arg-type]
        (Verdict(Status.SAT, witness=[1.0]), "a witness of type list"),  # type: ignore[arg-type]
        (Verdict(Status.SAT, witness=np.zeros(2)), "a witness of type float64"),  # type: ignore[arg-type]
        (Verdict(Status.UNKNOWN, certificate={}), "a certificate of type dict"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_verdict_is_refused(verdict: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        encode(verdict)


class OutOfMemoryError(Exception):
    """As torch names its own."""


class NestedError(OutOfMemoryError):
    """A kind of it."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("cuda"), True),
        (NestedError("cuda"), True),
        (RuntimeError("CUDA error: Out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_want_of_memory(error: Exception, expected: bool) -> None:
    assert is_memory_error(error) is expected
    assert (describe(error)["kind"] == "memory") is expected


def test_failures_are_told_apart() -> None:
    assert describe(UnsupportedError("no pools")) == {"ok": False, "kind": "unsupported", "text": "no pools"}
    network = UnsupportedNetworkError("no loops")
    assert describe(network) == {"ok": False, "kind": "unsupported", "text": "no loops"}
    # A refusal is one sentence; anything else is named.
    assert describe(UserError("It is refused.")) == {"ok": False, "kind": "error", "text": "It is refused."}
    assert describe(KeyError("x")) == {"ok": False, "kind": "error", "text": "KeyError: 'x'"}


def test_memory_is_measured() -> None:
    peak = peak_memory_mb()
    assert peak is None or 20 < peak < 100_000


def test_a_network_is_read_loaded_and_asked_about(server: Server, tmp_path: Path) -> None:
    path = onnxnets.convolutional(tmp_path / "n.onnx")
    instance = onnxnets.instance(path, 0.01)
    assert read(server, instance, tmp_path / "scratch")["ok"]
    reply = server.answer(("solve", ([instance, instance],)))
    assert reply["ok"]
    assert [verdict["status"] for verdict in reply["verdicts"]] == ["unknown", "unknown"]
    assert list(Steady.questions) == [instance, instance]
    assert reply["peak_mb"] == pytest.approx(peak_memory_mb(), rel=0.2)


def test_a_property_that_does_not_fit_is_answered_without_the_adapter(server: Server, tmp_path: Path) -> None:
    path = softmax(tmp_path / "n.onnx", "Softmax")
    fits = question(path)
    other = question(path, spec=OutputSpec(((np.array([[1.0, 0, 0]]), np.array([0.3])),)))
    assert read(server, fits, tmp_path / "scratch")["ok"]
    reply = server.answer(("solve", ([other, fits, other, fits],)))
    statuses = [verdict["status"] for verdict in reply["verdicts"]]
    assert statuses == ["unsupported", "unknown", "unsupported", "unknown"]
    assert "export the network without" in reply["verdicts"][0]["detail"]
    # They are about the normal form, in order.
    assert [item.onnx.parent.name for item in Steady.questions] == ["scratch", "scratch"]
    none = server.answer(("solve", ([other],)))
    assert [verdict["status"] for verdict in none["verdicts"]] == ["unsupported"]


def test_another_network_s_normal_form_takes_its_place(server: Server, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    for name in ("one", "two"):
        assert read(server, question(softmax(tmp_path / f"{name}.onnx", "Softmax")), scratch)["ok"]
        assert sorted(file.name for file in scratch.iterdir()) == [f"before-{name}.onnx", f"{name}.onnx"]
    broken = question(softmax(tmp_path / "three.onnx", "Softmax"))
    broken.onnx.write_bytes(b"junk")
    assert read(server, broken, scratch)["kind"] == "error"
    assert not list(scratch.iterdir())
    # Nothing may be asked about the network before it.
    assert server.answer(("load", ()))["kind"] == "error"


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (Verdict(Status.UNSAT), "error", "Verdict where a list of verdicts belongs"),
        ([], "error", "0 verdicts for 1 instances"),
        ([Verdict(Status.UNSAT)] * 2, "error", "2 verdicts for 1 instances"),
        (["unsat"], "error", "str 'unsat' where a Verdict belongs"),
        (MemoryError("no more"), "memory", "MemoryError: no more"),
        (UnsupportedError("not this one"), "unsupported", "not this one"),
        (SystemExit(3), "error", "SystemExit: 3"),
        (KeyboardInterrupt(), "error", "KeyboardInterrupt"),
        (UserError("It is refused."), "error", "It is refused."),
    ],
)
def test_whatever_an_adapter_does_is_an_answer(
    answer: Any, kind: str, why: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = onnxnets.instance(onnxnets.convolutional(tmp_path / "n.onnx"), 0.01)
    assert read(server, instance, tmp_path)["ok"]
    monkeypatch.setattr(Steady, "answer", answer)
    reply = server.answer(("solve", ([instance],)))
    assert (reply["ok"], reply["kind"]) == (False, kind)
    assert why in reply["text"]
    monkeypatch.setattr(Steady, "answer", None)
    assert server.answer(("solve", ([instance],)))["ok"]


def test_what_is_not_asked_in_order_or_not_known_is_an_error(server: Server, tmp_path: Path) -> None:
    assert server.answer(("dance", ()))["kind"] == "error"
    assert server.answer(("start", ("no.such.module", "X", {}, "cpu")))["text"].startswith("ModuleNotFoundError")
    path = onnxnets.residual(tmp_path / "n.onnx")
    reply = server.answer(("inspect", (str(path), (), None)))
    assert (reply["ok"], reply["outputs"], reply["last"]) == (True, 10, "none")
    assert dict(reply["operators"]).keys() == {"Conv", "Relu", "Add", "AveragePool", "Flatten", "Gemm"}


def test_requests_are_served_until_the_other_end_is_closed() -> None:
    requests, replies = os.pipe(), os.pipe()
    thread = threading.Thread(target=serve, args=(requests[0], replies[1]))
    thread.start()
    with os.fdopen(requests[1], "wb") as outgoing, os.fdopen(replies[0], "rb") as incoming:
        # Two at once, and a third in pieces.
        third = frame(("dance", (3,)))
        outgoing.write(frame(("load", ())) + frame(("dance", ())) + third[:7])
        outgoing.flush()
        outgoing.write(third[7:])
        outgoing.flush()
        for word in ("AssertionError", "KeyError", "KeyError"):
            _, length, checksum = HEADER.unpack(incoming.read(HEADER.size))
            payload = incoming.read(length)
            assert zlib.crc32(payload) == checksum
            reply = pickle.loads(payload)
            assert reply["text"].startswith(word)
        # It ends within a message, too.
        outgoing.write(third[:9])
        outgoing.close()
        thread.join(10)
        assert not thread.is_alive()
        assert incoming.read() == b""
