"""What verifiers would see of a network is found out within limits, once, and said in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Capabilities, Kind, Verifier
from prunecert.verifiers.process import inspection, parent
from prunecert.verifiers.process.inspection import Inspection, check_supported, inspect_network, read_memory_mb
from prunecert.verifiers.process.parent import FailureKind, ProcessError
from tests.verifiers import onnxnets
from tests.verifiers.process.test_reading import build, layers, perceptron
from tests.verifiers.process.test_worker import dropout, loop


class Told:
    """Stands in for the process; it answers, or fails, as a test says, and notes what it was asked."""

    reply: Any = None
    calls: list[tuple[Any, ...]]
    closed = 0

    def __init__(self, **options: Any) -> None:
        assert options == {"log": None, "threads": 1, "memory_limit_mb": None}

    def resident_mb(self) -> float:
        return 100.0

    def ask(self, *arguments: Any) -> tuple[Any, float]:
        self.calls.append(arguments)
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply, 0.1

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> type[Told]:
    monkeypatch.setattr(parent, "Process", Told)
    monkeypatch.setattr(Told, "calls", [], raising=False)
    monkeypatch.setattr(Told, "closed", 0)
    monkeypatch.setattr(Told, "reply", {"operators": (("Gemm", "g"), ("Relu", "r")), "outputs": 3, "last": "order"})
    inspection._inspect.cache_clear()
    return Told


def foreign(path: Path, operator: str = "Sigmoid") -> Path:
    """A network whose middle is not of the normal form."""
    nodes = perceptron()
    nodes[1] = helper.make_node(operator, ["g"], ["r"])
    return build(path, nodes, layers(np.random.default_rng(0)))


def failure(kind: FailureKind) -> ProcessError:
    return ProcessError(kind, f"it was {kind}", fatal=True, wall_s=1.0, peak_mb=1.0, tail="")


def test_a_network_in_normal_form_needs_no_process(listener: type[Told], tmp_path: Path) -> None:
    network = inspect_network(onnxnets.convolutional(tmp_path / "n.onnx"))
    assert [operator for operator, _ in network.operators] == ["Conv", "Relu", "Flatten", "Gemm"]
    assert (network.outputs, network.last, network.refusal) == (10, "none", "")
    assert not listener.calls


def test_another_one_is_read_in_a_process_within_limits_once(listener: type[Told], tmp_path: Path) -> None:
    path = foreign(tmp_path / "n.onnx")
    expected = Inspection((("Gemm", "g"), ("Relu", "r")), 3, "order")
    assert inspect_network(path, keep=("MaxPool", "Conv"), outputs=3) == expected
    # What the process has by itself, and what reading may take.
    limit = 100.0 + read_memory_mb(path)
    assert listener.calls == [
        ("inspect", (str(path), ("MaxPool",), 3), inspection.READ_LIMIT_S, inspection._GRACE_S, limit)
    ]
    assert listener.closed == 1
    # Operators that nobody keeps make no other question.
    assert inspect_network(path, keep=("MaxPool", "Gemm"), outputs=3) is inspect_network(
        path, keep={"MaxPool"}, outputs=3
    )
    assert len(listener.calls) == 1
    inspect_network(path, outputs=3)
    foreign(path, "Tanh")
    inspect_network(path, outputs=3)
    assert [call[1][1] for call in listener.calls] == [("MaxPool",), (), ()]


def test_what_has_no_normal_form_is_an_answer(
    listener: type[Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "reply", failure("unsupported"))
    assert inspect_network(foreign(tmp_path / "n.onnx")) == Inspection((), None, refusal="it was unsupported")
    assert listener.closed == 1


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("error", "^it was error$"),
        ("timeout", r"can't be read within limits \(it was timeout\)"),
        ("memory", r"can't be read within limits \(it was memory\)"),
        ("crash", r"can't be read within limits \(it was crash\)"),
    ],
)
def test_failures_are_refusals_and_are_asked_again(
    kind: FailureKind, why: str, listener: type[Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = foreign(tmp_path / "n.onnx")
    monkeypatch.setattr(listener, "reply", failure(kind))
    for _ in range(2):
        with pytest.raises(UserError, match=why):
            inspect_network(path)
    assert listener.closed == len(listener.calls) == 2


class Native(Verifier):
    """Takes Gemm and Relu, and some networks as they are."""

    name = "native"
    kind = Kind.INCOMPLETE

    @classmethod
    def capabilities(cls) -> Capabilities:
        return Capabilities(operators=frozenset({"Gemm", "Relu"}), native=frozenset({"Gemm", "Sigmoid"}))


def test_the_question_goes_first_then_the_operators(
    listener: type[Told], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = foreign(tmp_path / "n.onnx")
    assert "norm l2" in str(check_supported(Native, tmp_path / "not there", "l2", "robustness"))
    assert "only robustness" in str(check_supported(Native, tmp_path / "not there", "linf", "dnf"))
    assert not listener.calls
    assert check_supported(Native, path, "linf", "robustness") is None
    assert "doesn't take the operator Conv" in str(
        check_supported(Native, onnxnets.convolutional(tmp_path / "c.onnx"), "linf", "robustness")
    )
    # Without a normal form it depends on whether the verifier takes the network as it is.
    inspection._inspect.cache_clear()
    monkeypatch.setattr(listener, "reply", failure("unsupported"))
    assert check_supported(Native, foreign(tmp_path / "s.onnx"), "linf", "robustness") is None
    assert check_supported(Native, foreign(tmp_path / "t.onnx", "Tanh"), "linf", "robustness") == "it was unsupported"


def test_memory_grows_with_the_file_and_its_weights(tmp_path: Path) -> None:
    path = onnxnets.linear(tmp_path / "n.onnx", shape=(3, 64, 64))
    size = path.stat().st_size / 2**20
    assert read_memory_mb(path) == pytest.approx(inspection.READ_MEMORY_MB + inspection.READ_MEMORY_FACTOR * size)
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="weights.data", size_threshold=0)
    assert path.stat().st_size < 4096
    beside = sum(file.stat().st_size for file in (path, tmp_path / "weights.data")) / 2**20
    assert read_memory_mb(path) == pytest.approx(inspection.READ_MEMORY_MB + inspection.READ_MEMORY_FACTOR * beside)


@pytest.mark.slow
def test_what_is_not_taken_is_named_before_the_long_work(tmp_path: Path) -> None:
    sparse, crown = VERIFIERS.get("sparse-crown"), VERIFIERS.get("crown")
    assert check_supported(crown, loop(tmp_path / "l.onnx"), "linf", "dnf")
    assert "Dropout" in str(check_supported(sparse, dropout(tmp_path / "d.onnx"), "linf", "dnf"))
    constants = {**layers(np.random.default_rng(0)), "slope": np.array(0.1, np.float32)}
    nodes = perceptron()
    nodes[1] = helper.make_node("LeakyRelu", ["g"], ["r"], alpha=0.1)
    leaky = build(tmp_path / "leaky.onnx", nodes, constants)
    assert check_supported(sparse, leaky, "linf", "dnf") is None
    assert check_supported(sparse, leaky, "l2", "dnf") is None
    assert "norm l2" in str(check_supported(VERIFIERS.get("sparse-ibp"), leaky, "l2", "dnf"))
    assert {name for name, _ in inspect_network(leaky).operators} <= {"Gemm", "Relu", "Add"}
