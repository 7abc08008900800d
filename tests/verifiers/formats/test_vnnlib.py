from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prunecert.errors import UserError
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec
from prunecert.verifiers.formats.vnnlib import (
    Property,
    UnsupportedPropertyError,
    has_plain_rows,
    parse_property,
    read_counterexample,
    read_property,
    to_vnnlib,
    write,
    write_counterexample,
)

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
finite64 = st.floats(min_value=-1e30, max_value=1e30)
#: Of rows that are read as they are written; others are scaled.
coefficients = st.just(0.0) | st.floats(1e-20, 1e30) | st.floats(-1e30, -1e-20)


def instance(lower: FloatArray, upper: FloatArray, spec: OutputSpec, classes: int, **more: Any) -> Instance:
    return Instance(Path("net.onnx"), "0" * 64, lower, upper, spec, 10.0, classes=classes, **more)


def back(prop: Property, like: Instance) -> Instance:
    (question,) = prop.instances(like.onnx, like.onnx_sha256, like.lower.shape, like.timeout)
    return question


def text(*assertions: str, inputs: int = 2, outputs: int = 2) -> str:
    declared = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    declared += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    return "\n".join([*declared, *(f"(assert {a})" for a in assertions)])


BOX = ("(>= X_0 -1)", "(<= X_0 1)", "(>= X_1 -1)", "(<= X_1 1)")


@given(hnp.arrays(np.float32, (2, 3, 2), elements=finite32), hnp.arrays(np.float32, (2, 3, 2), elements=finite32))
def test_written_boxes_read_back_bit_by_bit(a: FloatArray, b: FloatArray) -> None:
    like = instance(np.minimum(a, b), np.maximum(a, b), OutputSpec.robustness(1, 3), 3, label=1)
    read = back(parse_property(to_vnnlib(like)), like)
    assert read.lower.tobytes() == like.lower.tobytes()
    assert read.upper.tobytes() == like.upper.tobytes()
    assert read.label == 1
    assert read.digest() == like.digest()


@pytest.mark.slow
@given(
    st.lists(
        st.integers(1, 3).flatmap(
            lambda m: st.tuples(
                hnp.arrays(np.float64, (m, 3), elements=coefficients), hnp.arrays(np.float64, (m,), elements=finite64)
            )
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_dnf_reads_back_equal(disjuncts: list[tuple[Any, Any]]) -> None:
    disjuncts = [(a, b) for a, b in disjuncts if np.all(np.any(a != 0, axis=1))]
    if not disjuncts:
        return
    box = np.zeros(2, np.float32)
    like = instance(box, box, OutputSpec(tuple(disjuncts)), 3)
    read = back(parse_property(to_vnnlib(like)), like).spec.disjuncts
    assert len(read) == len(disjuncts)
    for (a, b), (c, d) in zip(disjuncts, read, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_robustness_has_the_form_that_other_readers_take() -> None:
    box = np.array([[0.25]], np.float32)
    like = instance(box, box, OutputSpec.robustness(0, 3), 3, label=0, name="image 17; of\nmany", eps=2 / 255)
    lines = to_vnnlib(like).splitlines()
    assert lines[0] == "; image 17; of many"
    assert [line for line in lines if not line.startswith(";")] == [
        "(declare-const X_0 Real)",
        "(declare-const Y_0 Real)",
        "(declare-const Y_1 Real)",
        "(declare-const Y_2 Real)",
        "(assert (>= X_0 0.25))",
        "(assert (<= X_0 0.25))",
        "(assert (or",
        "    (and (>= Y_1 Y_0))",
        "    (and (>= Y_2 Y_0))",
        "))",
    ]


def test_no_exponents_are_written() -> None:
    tiny = np.array([np.float32(1e-45)])
    like = instance(tiny, np.array([3e38], np.float32), OutputSpec.robustness(0, 2), 2, eps=1e-9)
    written = "\n".join(line for line in to_vnnlib(like).splitlines() if line.startswith("(assert ("))
    assert "e" not in written.replace("assert", "")


def test_an_l2_ball_is_refused() -> None:
    box = np.zeros(1, np.float32)
    ball = instance(box, box, OutputSpec.robustness(0, 2), 2, norm="l2", center=box, eps=0.1)
    with pytest.raises(UserError, match="l2 ball"):
        to_vnnlib(ball)


def test_an_all_zero_row_is_refused() -> None:
    box = np.zeros(1, np.float32)
    with pytest.raises(UserError, match="all zero"):
        to_vnnlib(instance(box, box, OutputSpec(((np.zeros((1, 2)), np.ones(1)),)), 2))


@given(hnp.arrays(np.float64, (4,), elements=finite64), hnp.arrays(np.float64, (4,), elements=finite64))
def test_decimals_are_rounded_outwards_for_proofs_and_inwards_for_witnesses(a: Any, b: Any) -> None:
    low, high = np.minimum(a, b), np.maximum(a, b)
    lines = [f"(and (>= X_{i} {float(low[i])!r}) (<= X_{i} {float(high[i])!r}))" for i in range(4)]
    (case,) = parse_property(text(*lines, "(<= Y_0 Y_1)", inputs=4)).cases
    np.testing.assert_array_equal(case.lower, low)
    np.testing.assert_array_equal(case.upper, high)
    lower, upper = case.outer()
    assert lower.dtype == np.float32
    assert np.all(lower.astype(float) <= low)
    assert np.all(upper.astype(float) >= high)
    # The next float inwards would cut something off.
    assert np.all(np.nextafter(lower, np.float32(np.inf)).astype(float) > low)
    assert np.all(np.nextafter(upper, np.float32(-np.inf)).astype(float) < high)
    point = case.nearest(lower)
    if point is not None:
        assert case.contains(point)
        assert np.all(point >= lower)
        assert case.contains(lower) == bool(np.all(point == lower))


def test_a_point_in_the_sliver_is_no_counterexample() -> None:
    (case,) = parse_property(text("(>= X_0 0.1)", "(<= X_0 0.1)", "(<= Y_0 Y_1)", inputs=1)).cases
    lower, upper = case.outer()
    assert lower[0] < np.float32(0.1) <= upper[0]
    assert not case.contains(lower)
    assert not case.contains(upper)
    assert case.nearest(lower) is None


def test_bounds_beyond_float32_are_unsupported() -> None:
    prop = parse_property(text(*BOX[:3], "(<= X_1 1e39)", "(<= Y_0 Y_1)"))
    with pytest.raises(UnsupportedPropertyError, match="X_1 has a bound beyond float32"):
        prop.cases[0].outer()


@pytest.mark.parametrize(
    ("formula", "rows"),
    [
        ("(<= Y_0 Y_1)", [[([1, -1], 0)]]),
        ("(>= Y_0 Y_1)", [[([-1, 1], 0)]]),
        ("(<= Y_0 3.5)", [[([1, 0], 3.5)]]),
        ("(<= -2 Y_1)", [[([0, -1], 2)]]),
        ("(<= (+ (* 2 Y_0) (- Y_1) 1) 3)", [[([2, -1], 2)]]),
        ("(>= (- Y_0 Y_1 1) (* Y_1 2.5))", [[([-1, 3.5], -1)]]),
        ("(= Y_0 1)", [[([1, 0], 1), ([-1, 0], -1)]]),
        ("(and (<= Y_0 1) (<= Y_1 2))", [[([1, 0], 1), ([0, 1], 2)]]),
        ("(or (<= Y_0 1) (<= Y_1 2))", [[([1, 0], 1)], [([0, 1], 2)]]),
        (
            "(and (or (<= Y_0 1) (<= Y_0 2)) (or (<= Y_1 3) (<= Y_1 4)))",
            [[([1, 0], a), ([0, 1], b)] for a in (1, 2) for b in (3, 4)],
        ),
        ("(or (and (<= Y_0 1) (or (<= Y_1 2) (<= Y_1 3))))", [[([1, 0], 1), ([0, 1], b)] for b in (2, 3)]),
    ],
)
def test_output_constraints(formula: str, rows: list[list[tuple[list[float], float]]]) -> None:
    (case,) = parse_property(text(*BOX, formula)).cases
    assert [[(a.tolist(), r) for a, r in zip(m, b, strict=True)] for m, b in case.spec.disjuncts] == rows


formulas = st.recursive(
    st.tuples(
        st.sampled_from(["<=", ">="]), st.sampled_from(["Y_0", "Y_1"]), st.sampled_from(["Y_0", "Y_1", "1", "-2"])
    )
    .filter(lambda t: t[1] != t[2])
    .map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda t: f"({t[0]} {' '.join(t[1])})"
    ),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.lists(formulas, min_size=1, max_size=3), st.lists(st.sampled_from([-3, -2, -1, 0, 1, 2]), min_size=2))
def test_any_and_or_means_what_it_says(assertions: list[str], y: list[int]) -> None:
    (case,) = parse_property(text(*BOX, *assertions)).cases

    def holds(words: list[str]) -> bool:
        operator = words.pop(0)
        if operator in ("<=", ">="):
            left, right = (y[int(w[2:])] if w.startswith("Y") else int(w) for w in (words.pop(0), words.pop(0)))
            words.pop(0)
            return left <= right if operator == "<=" else left >= right
        values = []
        while words.pop(0) == "(":
            values.append(holds(words))
        return all(values) if operator == "and" else any(values)

    expected = all(holds(a.replace("(", " ( ").replace(")", " ) ").split()[1:]) for a in assertions)
    assert case.spec.violated_by(y[:2]) == expected


def test_input_disjunctions_become_cases() -> None:
    prop = parse_property(
        text(
            "(or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 2) (<= X_0 3)))",
            "(>= X_1 0)",
            "(<= X_1 0.5)",
            "(or (<= Y_0 0) (<= Y_1 0))",
        )
    )
    assert [(c.lower.tolist(), c.upper.tolist()) for c in prop.cases] == [([0, 0], [1, 0.5]), ([2, 0], [3, 0.5])]
    assert [len(c.spec.disjuncts) for c in prop.cases] == [2, 2]
    names = [i.name for i in prop.instances(Path("n.onnx"), "", (1, 2), 1.0, "p")]
    assert names == ["p case 1 of 2", "p case 2 of 2"]


def test_each_case_keeps_its_own_outputs() -> None:
    prop = parse_property(text("(or (and (<= X_0 0) (<= Y_0 0)) (and (>= X_0 0) (<= Y_1 5)))", *BOX))
    assert [(c.lower[0], c.upper[0], c.spec.disjuncts[0][1].tolist()) for c in prop.cases] == [
        (-1, 0, [0]),
        (0, 1, [5]),
    ]


def test_impossible_combinations_are_dropped() -> None:
    prop = parse_property(text(*BOX, "(<= Y_0 0)", "(or (<= X_0 0.5) (>= X_0 2))"))
    assert [(c.lower[0], c.upper[0]) for c in prop.cases] == [(-1, 0.5)]


def test_bounds_in_any_form_and_order() -> None:
    prop = parse_property(
        "; comment (assert (<= X_0 0))\n" + text("(<= -1.5e0 X_0)", "(<= (* 2 X_0) 1)", "(<= Y_0 Y_1)", inputs=1)
    )
    assert (prop.cases[0].lower[0], prop.cases[0].upper[0]) == (-1.5, 0.5)
    prop = parse_property(
        "(assert (<= Y_0 0)) (assert (>= X_0 .5)) (assert (<= X_0 1.)) (assert (<= X_0 0.75))\n"
        "(declare-fun X_0 () Real) (declare-const  Y_0  Real)"
    )
    assert (prop.cases[0].lower[0], prop.cases[0].upper[0]) == (0.5, 0.75)


def test_vnnlib_2_is_read_through_the_package() -> None:
    prop = parse_property(
        """
        (vnnlib-version <2.0>)
        (declare-network N (declare-input X float32 [1,2,2]) (declare-output Y float32 [1,2]))
        (assert (and (>= X[0,0,0] -0.1) (<= X[0,0,0] 0.2) (>= X[0,0,1] 0.3) (<= X[0,0,1] 0.4)))
        (assert (and (>= X[0,1,0] 0.5) (<= X[0,1,0] 0.6) (== X[0,1,1] (- 0.7))))
        (assert (or (>= Y[0,1] Y[0,0]) (<= Y[0,0] (+ (* 2.0 Y[0,1]) 3.0))))
        """
    )
    assert (prop.version, prop.inputs, prop.outputs) == ("2.0", 4, 2)
    assert prop.cases[0].lower.tolist() == [-0.1, 0.3, 0.5, -0.7]
    assert prop.cases[0].upper.tolist() == [0.2, 0.4, 0.6, -0.7]
    assert [a.tolist() for a, _ in prop.cases[0].spec.disjuncts] == [[[1, -1]], [[1, -2]]]


def test_vnnlib_2_with_two_networks_is_unsupported() -> None:
    network = "(declare-network {} (declare-input X{} float32 [1]) (declare-output Y{} float32 [1]))"
    two = "(vnnlib-version <2.0>) " + " ".join(network.format(n, n, n) for n in "MN") + " (assert (<= YM[0] YN[0]))"
    with pytest.raises(UnsupportedPropertyError, match=r"two networks.*--with"):
        parse_property(two)


def test_broken_vnnlib_2_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"1 parentheses are not closed") as caught:
        parse_property("(vnnlib-version <2.0>) (declare-network")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("formula", "why"),
    [
        ("(<= X_0 Y_0)", "mixes inputs and outputs"),
        ("(<= X_0 X_1)", "ties several inputs"),
        ("(<= (* Y_0 Y_1) 1)", "multiplies variables"),
        ("(<= (* Y_0 Y_0) 1)", "multiplies variables"),
        ("(<= (/ 2 Y_0) 1)", "divides by a variable"),
        ("(<= (/ Y_0 (- 1 1)) 1)", "divides by 0"),
        ("(<= (max Y_0 Y_1) 1)", "uses 'max'"),
        ("(<= (ite (<= Y_0 1) Y_0 Y_1) 1)", "uses 'ite' between terms"),
        ("(<= (* 3 0.1 Y_0) Y_1)", "can't hold exactly"),
        ("(<= (* (+ 1 1e-20) Y_0) Y_1)", "can't hold exactly"),
    ],
)
def test_unsupported_properties_say_why(formula: str, why: str) -> None:
    with pytest.raises(UnsupportedPropertyError, match=why):
        parse_property(text(*BOX, formula))


def test_missing_bounds_are_unsupported() -> None:
    with pytest.raises(UnsupportedPropertyError, match="X_1 without a finite"):
        parse_property(text(*BOX[:3], "(<= Y_0 Y_1)"))


def test_too_many_clauses_are_refused_before_they_fill_the_memory() -> None:
    pair = "(or (<= Y_0 1) (<= Y_1 1))"
    with pytest.raises(UnsupportedPropertyError, match="over 100000 clauses"):
        parse_property(text(*BOX, *[pair] * 40))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "declares 0 variables X_i"),
        ("hello world", "the statement hello is not understood"),
        ("(declare-const X_0 Real", "1 parentheses are not closed"),
        ("(declare-const X_0 Real))", "never opened"),
        ("(declare-const X_0 Int)", "is not understood"),
        (text("(<= Y_0 Y_1)", inputs=0), "declares 0 variables X_i"),
        (text(*BOX, "(<= Y_0 Y_1)").replace("(declare-const X_0 Real)", ""), "without a gap"),
        (text(*BOX, "(<= Y_0 Y_7)"), "uses Y_7, which it does not declare"),
        (text(*BOX, "(<= X_7 1)", "(<= Y_0 1)"), "uses X_7, which it does not declare"),
        (text(*BOX, "(or (<= X_7 1) (<= Y_0 1))"), "uses X_7, which it does not declare"),
        (text(*BOX, "(<= Y_0 nan)"), "neither a number nor"),
        (text(*BOX, "(<= Y_0 1_000)"), "neither a number nor"),
        (text(*BOX, "(<= Y_0 1e999)"), "too large for binary64"),
        (text(*BOX, "(<= Y_0)"), "is not understood"),
        (text(*BOX, "(or)"), "is not understood"),
        (text(*BOX, "Y_0"), "is not understood"),
        (text(*BOX, "(<= Y_0 1e-999)"), "too small for binary64"),
        (text(*BOX, "(<= Y_00 1)"), "uses Y_00, which it does not declare; declared are X_0 to X_1 and Y_0 to Y_1"),
        (text(*BOX, "(<= y_0 1)"), "uses y_0, which it does not declare"),
        (text(*BOX, "(<= Y_0 1)") + "(declare-const y_0 Real)", "declares both Y_0 and y_0"),
        (text(*BOX, "(<= Y_0 1)") + "(declare-const X_00 Real)", "declares both X_0 and X_00"),
        (text(*BOX, "(<= (* 1e308 1e308 Y_0) Y_1)"), "too large or too small together"),
        (text(*BOX, "(<= Y_0 (* 1e308 1e308))"), "too large or too small together"),
        (text(*BOX, "(>= X_0 (/ 1e308 1e-10))", "(<= Y_0 0)"), "too large or too small together"),
        (text(*BOX, f"(<= Y_0 {'1' * 5_001})"), "a number of 5001 characters"),
        (f"(declare-const X_{'1' * 5_000} Real)", "allowed are up to 10000000 variables"),
        (text(*BOX, f"(<= Y_{'1' * 5_000} 0)"), "which it does not declare"),
        (text(*BOX, "(<= Y_0 (+ 1 true))"), "a formula stands for a number"),
        (text(*BOX, "(assert (<= X_0 0.5))"), "stands inside of another expression"),
        (text(*BOX, "(<= Y_0 1)") + "(pop 1)", "has no push before it"),
        (text(*BOX) + "(define-fun X_0 () Real 1)", "has a meaning already"),
        (text(*BOX) + "(define-fun a () Real a)", "neither a number nor"),
        (text(*BOX) + "(define-fun f ((a Real)) Real (f a))(assert (<= (f 1) 2))", "is not understood"),
        ("(vnnlib-version <1.0>) (declare-network N)", "names VNN-LIB 1.0 but is written in 2.0"),
    ],
)
def test_what_is_no_vnnlib_is_refused_in_one_sentence(content: str, why: str) -> None:
    with pytest.raises(UserError, match=why) as caught:
        parse_property(content, "f.vnnlib")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_files_plain_and_gzipped(tmp_path: Path) -> None:
    box = np.array([0.1, 0.2], np.float32)
    like = instance(box, box, OutputSpec.robustness(0, 2), 2, label=0)
    for name in ("a.vnnlib", "deep/b.vnnlib.gz"):
        write(like, tmp_path / name)
        assert back(read_property(tmp_path / name), like).digest() == like.digest()
    raw = (tmp_path / "deep/b.vnnlib.gz").read_bytes()
    assert gzip.decompress(raw).decode() == (tmp_path / "a.vnnlib").read_text()
    write(like, tmp_path / "c.vnnlib.gz")
    assert (tmp_path / "c.vnnlib.gz").read_bytes() == raw
    (tmp_path / "cut.vnnlib.gz").write_bytes(raw[:-9])
    (tmp_path / "binary.vnnlib").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=r"cut\.vnnlib\.gz is a damaged or cut-off"):
        read_property(tmp_path / "cut.vnnlib.gz")
    with pytest.raises(UserError, match="not text"):
        read_property(tmp_path / "binary.vnnlib")
    with pytest.raises(UserError, match="does not exist"):
        read_property(tmp_path / "none.vnnlib")
    with pytest.raises(UserError, match="is a folder"):
        read_property(tmp_path)


def test_instances_want_the_networks_inputs() -> None:
    with pytest.raises(UserError, match=r"has 2 inputs but the network n\.onnx has 3"):
        parse_property(text(*BOX, "(<= Y_0 0)")).instances(Path("n.onnx"), "", (3,), 1.0, "p")


@pytest.mark.parametrize(
    ("row", "rhs", "plain"),
    [
        ([1, -1, 0], 0, True),
        ([1, -1, 0], 0.5, False),
        ([0, 1, 0], 0.5, True),
        ([0, -1, 0], 0.5, True),
        ([0, 2, 0], 0.5, False),
        ([1, 1, 0], 0, False),
        ([1, -1, 1], 0, False),
    ],
)
def test_plain_rows(row: list[float], rhs: float, plain: bool) -> None:
    assert has_plain_rows(OutputSpec(((np.array([row], float), np.array([rhs], float)),))) is plain


@given(hnp.arrays(np.float32, (2, 2), elements=finite32), hnp.arrays(np.float32, (3,), elements=finite32))
def test_counterexamples_read_back(tmp_path_factory: pytest.TempPathFactory, x: FloatArray, y: FloatArray) -> None:
    path = tmp_path_factory.mktemp("ce") / "a.counterexample.gz"
    write_counterexample(path, x, y)
    read_x, read_y = read_counterexample(path)
    assert read_x.astype(np.float32).tobytes() == x.tobytes()
    assert read_y.astype(np.float32).tobytes() == y.tobytes()
    content = gzip.decompress(path.read_bytes()).decode()
    assert content.startswith("((X_0 ")
    assert content.endswith("))\n")


@pytest.mark.parametrize(
    "content", ["", "()", "sat", "((X_0 1)", "((X_1 1))", "((X_0 1) (X_0 2))", "((X_0 a))", "((Y_0 1))", "((X_0 1) 3)"]
)
def test_broken_counterexamples_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.counterexample"
    path.write_text(content)
    with pytest.raises(UserError, match="is no counterexample file"):
        read_counterexample(path)


def test_an_image_is_read_fast() -> None:
    # 15 ms of processor time where this was written; the token by token way (150 ms) fails even on faster machines.
    rng = np.random.default_rng(0)
    box = rng.random((3, 32, 32)).astype(np.float32)
    written = to_vnnlib(instance(box, box, OutputSpec.robustness(0, 10), 10))
    best = min(_timed(written) for _ in range(5))
    assert best < 0.1


def _timed(written: str) -> float:
    # Not by the clock on the wall: tests share their machine.
    start = time.process_time()
    parse_property(written)
    return time.process_time() - start
