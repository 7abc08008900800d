"""Vibecheck's adapter: the question that it is put is the property, its words are translated, its failures are errors.

What it answers is played by a package of the same name in another interpreter; where VIBECHECK_PYTHON names a real
one, that is asked, too.
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.verifiers.adapters.vibecheck.adapter import VARIABLE, Vibecheck
from prunecert.verifiers.adapters.vibecheck.question import extended, thresholds
from prunecert.verifiers.adapters.vibecheck.words import STATUS, parse_status
from prunecert.verifiers.base import Instance, OutputSpec, Status, UnsupportedError, Verdict
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.formats.vnnlib import parse_property
from prunecert.verifiers.process.worker import Worker
from tests.verifiers import exact, onnxnets

#: Plays the package: tries 2,000 points, unless the environment says what to do.
FAKE = """
    import os, time, types
    import numpy as np

    def verify(net, spec, *, timeout, device, extra_args):
        act = os.environ.get("VIBECHECK_ACT", "")
        print("progress, which is no answer")
        os.write(1, b"noise of a library in C\\n")
        if act == "dies":
            os._exit(3)
        if act == "raises":
            raise ValueError("no such operator")
        if act == "sleeps":
            open(os.environ["VIBECHECK_PID"], "w").write(str(os.getpid()))
            time.sleep(60)
        if act == "slow":
            time.sleep(timeout)
        word, witness = "unknown" if act in ("slow", "unknown") else act, None
        if not act or act == "nowhere":
            import onnxruntime, re
            text = open(spec).read()
            low, high = (np.array([float(v) for _, v in sorted((int(i), v) for i, v in
                re.findall(r"\\(%s X_(\\d+) ([-0-9.]+)\\)" % sign, text))], np.float32) for sign in (">=", "<="))
            session = onnxruntime.InferenceSession(net, providers=["CPUExecutionProvider"])
            entry, rng = session.get_inputs()[0], np.random.default_rng(0)
            ands = re.findall(r"\\(and .*?\\)\\)", text)
            blocks = [[int(j) for j in re.findall(r"Y_(\\d+) 0.0", block)] for block in ands]
            word = "unsat"
            for _ in range(2000):
                point = np.clip((low + (high - low) * rng.random(len(low))).astype(np.float32), low, high)
                rows = session.run(None, {entry.name: point.reshape(entry.shape)})[0].reshape(-1)
                if any(max(rows[block]) <= 0 for block in blocks):
                    word, witness = "sat", point
                    break
        if act == "nowhere":
            word, witness = "sat", np.full(len(low), 1e9, np.float32)
        return types.SimpleNamespace(
            verdict=word, counterexample=None if witness is None else {"X": witness, "Y": None},
            details={"error": "of the fake" if word == "error" else ""})
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Names an interpreter that has the package that plays Vibecheck."""
    package = tmp_path / "site" / "vibecheck"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(FAKE))
    information = tmp_path / "site" / "vibecheck_nn-9.9.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: vibecheck-nn\nVersion: 9.9\n")
    python = tmp_path / "python"
    # `-I` would leave the path of this package out.
    python.write_text(
        f'#!/bin/sh\n[ "$1" = "-I" ] && shift\nPYTHONPATH="{package.parent}" exec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(python))
    return python


def ask(instances: list[Instance], act: str = "", grace_s: float = 5.0) -> list[Verdict]:
    os.environ["VIBECHECK_ACT"] = act
    try:
        with Worker("vibecheck", threads=1, grace_s=grace_s) as worker:
            return worker.verify(instances)
    finally:
        del os.environ["VIBECHECK_ACT"]


@pytest.mark.slow
def test_answers_come_through_and_witnesses_are_replayed(fake: Path, tmp_path: Path) -> None:
    cases = exact.questions(tmp_path, networks=2, factors=(0.5, 2.5))
    verdicts = ask([instance for instance, _ in cases])
    for (_, holds), verdict in zip(cases, verdicts, strict=True):
        # Few points find no counterexample where there are few.
        assert verdict.status is Status.UNSAT or not holds
        assert verdict.version == "9.9"
        assert verdict.witness_check is None or verdict.witness_check["ok"]
    assert {verdict.status for verdict in verdicts} >= {Status.UNSAT, Status.SAT}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "status", "said"),
    [
        ("unknown", Status.UNKNOWN, "'unknown' after"),
        ("timeout", Status.TIMEOUT, "'timeout' after"),
        ("slow", Status.TIMEOUT, "'unknown' after"),
        ("error", Status.ERROR, "of the fake"),
        ("raises", Status.ERROR, "no such operator"),
        ("safe", Status.ERROR, "'safe', which is none"),
        ("sat", Status.ERROR, "gave no point"),
        ("nowhere", Status.ERROR, "outside the box"),
        ("dies", Status.ERROR, "exit code 3"),
    ],
)
def test_a_failure_is_no_result(act: str, status: Status, said: str, fake: Path, tmp_path: Path) -> None:
    path = onnxnets.linear(tmp_path / "net.onnx")
    # A point that is none takes a second search, for which a busy machine must have time.
    timeout = 10.0 if act == "nowhere" else 1.0
    (verdict,) = ask([onnxnets.instance(path, 0.001, timeout=timeout)], act, grace_s=2.0)
    assert verdict.status is status, verdict.detail
    assert said in verdict.detail


@pytest.mark.slow
def test_nobody_is_left_behind(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "pid"
    monkeypatch.setenv("VIBECHECK_PID", str(note))
    path = onnxnets.linear(tmp_path / "net.onnx")
    (verdict,) = ask([onnxnets.instance(path, 0.001, timeout=1.0)], "sleeps", grace_s=2.0)
    assert verdict.status is Status.TIMEOUT
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(note.read_text())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(int(note.read_text()))


@pytest.mark.parametrize("text", ["import no_such_module", "raise SystemExit('licence')", "verifies = None"])
def test_why_it_cannot_be_imported_is_said(text: str, fake: Path, tmp_path: Path) -> None:
    (tmp_path / "site" / "vibecheck" / "__init__.py").write_text(text)
    verifier = Vibecheck()
    with pytest.raises(RuntimeError, match=r"can't import Vibecheck: .*(no_such_module|licence|'verify')"):
        verifier.start()
    assert not verifier._other.running


@pytest.mark.slow
def test_after_a_death_the_next_question_is_answered(fake: Path, tmp_path: Path) -> None:
    path = onnxnets.linear(tmp_path / "net.onnx")
    question = onnxnets.instance(path, 0.001)
    verifier = Vibecheck()
    verifier.start()
    verifier.load(path)
    try:
        verifier._other.close()
        assert not verifier._other.running
        (verdict,) = verifier.solve([question])
        assert verdict.status is Status.UNSAT, verdict.detail
    finally:
        verifier._other.close()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**20), shape=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_the_question_put_is_the_property(
    seed: int, shape: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("question")
    path = onnxnets.linear(folder / "net.onnx", seed=seed)
    disjuncts = tuple(
        # Numbers of float64 as well, some of them with digits that a float32 has no room for.
        (rng.integers(-2, 3, (rows, 10)) / rng.choice([1.0, 2.0, 3.0]), rng.standard_normal(rows))
        for rows in shape
    )
    instance = onnxnets.instance(path, 0.1, seed, spec=OutputSpec(disjuncts))
    target = folder / "more.onnx"
    onnx.save(extended(onnx.load(str(path)), instance), str(target))
    onnx.checker.check_model(str(target))
    prop = parse_property(thresholds(instance))
    assert (prop.inputs, prop.outputs) == (12, sum(shape))
    points = onnxnets.samples(instance, 50)
    before = counterexample.outputs(path, points, 10).astype(np.float64)
    after = counterexample.outputs(target, points, sum(shape)).astype(np.float64)
    exact_rows = np.concatenate([before @ a.T - b for a, b in disjuncts], axis=1)
    np.testing.assert_allclose(after, exact_rows, atol=1e-4)
    (case,) = prop.cases
    starts = np.cumsum([0, *shape])
    for rows, output in zip(exact_rows, after, strict=True):
        if np.abs(rows).min() > 1e-3:
            unsafe = any((rows[start : start + count] <= 0).all() for start, count in zip(starts, shape, strict=False))
            assert case.spec.violated_by(output) == unsafe
    np.testing.assert_array_equal(case.outer()[0], instance.lower.reshape(-1))
    np.testing.assert_array_equal(case.outer()[1], instance.upper.reshape(-1))


@given(limit=st.floats(-1e6, 1e6))
def test_a_limit_is_rounded_so_that_the_unsafe_set_gets_no_smaller(limit: float) -> None:
    nodes = [onnx.helper.make_node("Flatten", ["input"], ["output"])]
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [onnx.helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 1])],
        [onnx.helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, [1, 1])],
    )
    corner = np.zeros(1, np.float32)
    spec = OutputSpec(((np.ones((1, 1)), np.array([limit])),))
    instance = Instance(Path("net.onnx"), "", corner, corner, spec, timeout=1.0, classes=1)
    model = extended(onnx.helper.make_model(graph), instance)
    bias = float(onnx.numpy_helper.to_array(model.graph.initializer[1])[0])
    assert limit <= -bias <= limit + 1e-6 * abs(limit) + 1e-30


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (OutputSpec(((np.zeros((0, 10)), np.zeros(0)),)), "without rows"),
        (OutputSpec(()), "without rows"),
    ],
)
def test_a_property_that_cannot_be_put_is_refused(spec: OutputSpec, said: str, tmp_path: Path) -> None:
    path = onnxnets.linear(tmp_path / "net.onnx")
    with pytest.raises(UnsupportedError, match=said):
        extended(onnx.load(str(path)), onnxnets.instance(path, 0.1, spec=spec))


def test_digits_beyond_float32_are_kept(tmp_path: Path) -> None:
    path = onnxnets.linear(tmp_path / "net.onnx")
    row = np.full((1, 10), 1 / 3)
    model = extended(onnx.load(str(path)), onnxnets.instance(path, 0.1, spec=OutputSpec(((row, np.zeros(1)),))))
    constants = {item.name: onnx.numpy_helper.to_array(item).astype(np.float64) for item in model.graph.initializer}
    high, low = (value for name, value in constants.items() if name.endswith("_weight0"))
    assert np.abs(high - row).max() > 1e-9
    assert np.abs(high + low - row).max() < 1e-15
    assert [node.op_type for node in model.graph.node][-3:] == ["Gemm", "Gemm", "Add"]


@pytest.mark.parametrize(
    ("word", "seconds", "status"),
    [*((word, 1.0, status) for word, status in STATUS.items()), ("unknown", 9.8, Status.TIMEOUT),
     ("UNSAT", 1.0, Status.ERROR), ("timed-out", 1.0, Status.ERROR), (None, 1.0, Status.ERROR)],
)  # fmt: skip
def test_only_its_own_words_count(word: object, seconds: float, status: Status) -> None:
    assert parse_status(word, "", seconds, 10.0)[0] is status


def test_what_is_missing_is_named(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    present = Vibecheck.availability()
    assert present.installed
    assert present.source == "vibecheck-nn 9.9 (PyPI)"
    for value, said in [
        ("", "an interpreter of its own"),
        (str(tmp_path / "nobody"), "can't be asked"),
        ("/bin/true", "can't be asked (it answered nothing"),
        (sys.executable, "has no Vibecheck"),
    ]:
        monkeypatch.setenv(VARIABLE, value)
        absent = Vibecheck.availability()
        assert not absent.installed
        assert said in absent.hint
        assert "pip install vibecheck-nn" in absent.hint
    with pytest.raises(UserError, match="Unknown setting"):
        Vibecheck.resolve({"attacks": False})


@pytest.mark.slow
@pytest.mark.vibecheck
@pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"{VARIABLE} names no interpreter that has Vibecheck")
def test_the_real_one_agrees_with_exact_answers(tmp_path: Path) -> None:
    cases = exact.questions(tmp_path, networks=2, factors=(0.7, 0.97, 1.03, 1.5))
    with Worker("vibecheck", threads=1) as worker:
        verdicts = worker.verify([instance for instance, _ in cases])
    for (instance, holds), verdict in zip(cases, verdicts, strict=True):
        assert verdict.status in (Status.UNSAT if holds else Status.SAT, Status.UNKNOWN), (instance.name, verdict)
    assert sum(verdict.status.decided for verdict in verdicts) >= 0.8 * len(cases)
