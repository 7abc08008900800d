"""Files written in ways that few exporters choose: what is proved of them holds where onnxruntime runs them.

Each has a counterexample that is known beforehand, in a part of the box of a fiftieth of its width or so, where the
points at which a proof is tried seldom lie: what is read must be right by itself. Its control is the same question of
a threshold that no point reaches, which is to be proved, or the sentence by which the file is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, OutputSpec, Status, UnsupportedError
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.child import encode
from prunecert.verifiers.process.judge import judge
from prunecert.verifiers.process.reading import FileReading
from prunecert.verifiers.rounding import guard

#: b is 1 at x = 0.537, and 0 where x is more than a hundredth away.
HAT = """d = Sub (x, c)
  a = Abs (d)
  e = Mul (a, s)
  g = Sub (k, e)
  b = Relu (g)"""
CONSTANTS = "float[1] c = {0.537}, float[1] s = {100}, float[1] k = {1}"
PEAK = 0.537


def _file(path: Path, body: str, constants: str = "", *, opset: int = 15, functions: str = "") -> Path:
    more = f", {constants}" if constants else ""
    domains = f'"" : {opset}' + (', "my" : 1' if functions else "")
    text = f"""<ir_version: 8, opset_import: [{domains}]>
    net (float[1, 1] x) => (float[1, 1] y) <{CONSTANTS}{more}> {{
  {HAT}
  {body} }}
  {functions}"""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def _asked(path: Path, row: list[float], limit: float, low: float = 0.0, high: float = 1.0) -> Instance:
    """Whether row · y <= limit somewhere in [low, high]."""
    spec = OutputSpec(((np.array([row]), np.array([limit])),))
    lower, upper = (np.full((1, 1), end, np.float32)[0] for end in (low, high))
    return Instance(path, sha256_file(path), lower, upper, spec, 10.0, classes=len(row))


def _status(instance: Instance, folder: Path, name: str = "sparse-bab") -> Status:
    """Asks a verifier as a worker would: through the file's normal form, and back."""
    verifier = VERIFIERS.get(name)
    adapter = verifier()
    adapter.start()
    reading = FileReading(
        instance.onnx, instance.onnx_sha256, instance.classes, verifier.capabilities(), folder / "normal"
    )
    adapter.load(reading.path)
    reading.compare(instance, adapter.evaluate)
    tight = guard.prepare(verifier, instance)
    (answer,) = adapter.solve([reading.translate(tight)])
    return judge(verifier, instance, encode(reading.settle(instance, answer, adapter.evaluate))).status


FUNCTION = """<domain: "my", opset_import: ["" : 15]>
  Leaky <alpha: float = 0.5> (v) => (w) { w = LeakyRelu <alpha: float = @alpha> (v) }"""
#: Body, constants, row and limit of a property that the hat's top breaks, and a limit that nothing reaches.
READ_RIGHT = {
    # Without the function's default it would be 0.01.
    "a function's default attribute": ("n = Neg (b) y = my.Leaky (n)", "", [1.0], -0.3, -0.6, FUNCTION),
    # Without the broadcast it would be 1.
    "Pow by ones that broadcasts": (
        "p = Pow (b, o) y = ReduceSum <keepdims = 1> (p, axes)",
        "float[1, 3] o = {1, 1, 1}, int64[1] axes = {1}",
        [-1.0],
        -1.5,
        -3.5,
        "",
    ),
    # Without a scope of its own the branch's constant would be everybody's.
    "a branch's constant of an outer name": (
        "u = If (t) <then_branch = then () => (float[1, 1] v) <float[1] kk = {0.1}> { v = Mul (b, kk) },"
        " else_branch = other () => (float[1, 1] v) { v = Neg (b) }> y = Mul (u, kk)",
        "bool t = {1}, float[1] kk = {100}",
        [-1.0],
        -5.0,
        -12.0,
        "",
    ),
}


@pytest.mark.parametrize("name", READ_RIGHT)
def test_it_is_read_as_onnxruntime_runs_it(name: str, tmp_path: Path) -> None:
    body, constants, row, limit, beyond, functions = READ_RIGHT[name]
    path = _file(tmp_path / "n.onnx", body, constants, functions=functions)
    broken = _asked(path, row, limit)
    (output,) = counterexample.outputs(path, np.array([[PEAK]], np.float32))
    assert broken.spec.violated_by(output), "the test itself"
    assert _status(broken, tmp_path) is Status.SAT
    assert _status(_asked(path, row, beyond), tmp_path) is Status.UNSAT


def test_a_constant_that_goes_through_eight_bits_is_the_number_and_not_its_byte(tmp_path: Path) -> None:
    """1.1 is 1.125 there, for which the byte 57 stands."""
    body = "q = Cast <to = 17> (w) r = Identity (q) t = Cast <to = 1> (r) y = Mul (b, t)"
    path = _file(tmp_path / "n.onnx", body, "float[1] w = {1.1}", opset=21)
    (output,) = counterexample.outputs(path, np.array([[PEAK]], np.float32))
    assert output == pytest.approx(1.125)
    assert _status(_asked(path, [-1.0], -1.12), tmp_path) is Status.SAT
    assert _status(_asked(path, [-1.0], -1.13), tmp_path) is Status.UNSAT


@pytest.mark.parametrize(
    ("body", "constants", "words"),
    [
        ("i = CastLike (b, n) f = Cast <to = 1> (i) y = Sub (b, f)", "int64[1] n = {0}", "to INT64"),
        ("p = Softmax (b) h = Cast <to = 10> (p) y = Cast <to = 1> (h)", "", "16 bits don't keep the outputs' order"),
    ],
)
def test_what_rounds_otherwise_than_float32_is_refused(body: str, constants: str, words: str, tmp_path: Path) -> None:
    path = _file(tmp_path / "n.onnx", body, constants)
    with pytest.raises(UserError, match=words):
        _status(_asked(path, [1.0], 0.5), tmp_path)


def test_the_operator_that_was_taken_off_decides_what_room_its_rounding_needs(tmp_path: Path) -> None:
    """Not one that stands behind it in the file, on which the output doesn't depend."""
    path = tmp_path / "n.onnx"
    text = f"""<ir_version: 8, opset_import: ["" : 13]>
    net (float[1, 1] x) => (float[1, 2] y) <{CONSTANTS}, float[1, 2] w = {{10, 10}}, float[2] v = {{10, 9}}> {{
  {HAT} m = MatMul (b, w) z = Add (m, v) y = Sigmoid (z) dead = Softmax (z) }}"""
    onnx.save(onnx.parser.parse_model(text), path)
    (output,) = counterexample.outputs(path, np.array([[PEAK]], np.float32))
    assert output[0] == output[1] == 1, "float32's Sigmoid is 1 at 19 and at 20"
    with pytest.raises(UnsupportedError, match="ends with Sigmoid, whose float32 values are equal"):
        _status(_asked(path, [1.0, -1.0], 0.0), tmp_path)


def _cast(path: Path, kind: int | None) -> Path:
    """y = x in float32, or rounded to 16 bits on its way."""
    body = "y = Add (x, z)" if kind is None else f"h = Cast <to = {kind}> (x) f = Cast <to = 1> (h) y = Add (f, z)"
    text = f"""<ir_version: 8, opset_import: ["" : 13]>
    net (float[1, 1] x) => (float[1, 1] y) <float[1] z = {{0}}> {{ {body} }}"""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


@pytest.mark.parametrize("name", ["sparse-bab", "crown"])
@pytest.mark.parametrize(("kind", "unit"), [(None, 2.0**-24), (10, 2.0**-11), (16, 2.0**-8)])
def test_a_proof_needs_room_for_the_rounding_that_the_file_does(
    name: str, kind: int | None, unit: float, tmp_path: Path
) -> None:
    """x in [1, 2] is at least 1; rounded, it may be less than a number just above a threshold, by half a unit of 2."""
    path = _cast(tmp_path / "n.onnx", kind)
    assert _status(_asked(path, [1.0], 1.0 - unit / 2, 1.0 + unit / 4, 2.0), tmp_path, name) is Status.UNKNOWN
    assert _status(_asked(path, [1.0], 0.999 - 64 * unit, 1.0 + unit / 4, 2.0), tmp_path, name) is Status.UNSAT


#: ReLUs of thousands that cancel, behind something that NumPy's walk through the file can't run.
CANCELLING = (
    "float[2, 6] w = {3159.35, 5329.47, -7659.88, -413.895, 3041.16, 4056.43, 1961.37, 4491.35, 869.873, 1653.8,"
    " 536.213, -3221.58}, float[6, 1] v = {0.5, 0.25, 0.125, 0.0625, 0.3, 0.7}, int64[6] p = {4, 0, 2, 1, 5, 3},"
    " float[6, 1] u = {0.3, 0.5, 0.125, 0.25, 0.7, 0.0625}, float[1] one = {1}, bool t = {1}"
)


def test_what_can_not_be_run_in_float64_as_it_stands_is_measured_by_its_normal_form(tmp_path: Path) -> None:
    """f is 1 everywhere, and F is off by thousandths of what cancels: a blind guess would let such a proof pass."""
    allowances = {}
    branch = (
        "If (t) <then_branch = one () => (float[1, 6] i) { i = Identity (b) }, else_branch = two () => (float[1, 6] j)"
    )
    for name, body in (("plain", "h = Identity (b)"), ("branch", f"h = {branch} {{ j = Neg (b) }}>")):
        path = tmp_path / f"{name}.onnx"
        text = f"""<ir_version: 8, opset_import: ["" : 13]>
        net (float[1, 2] x) => (float[1, 1] y) <{CANCELLING}> {{
        a = MatMul (x, w) b = Relu (a) {body} q = Gather <axis = 1> (h, p)
        m = MatMul (h, v) n = MatMul (q, u) d = Sub (m, n) y = Add (d, one) }}"""
        onnx.save(onnx.parser.parse_model(text), path)
        spec = OutputSpec(((np.array([[1.0]]), np.array([0.9])),))
        low, high = np.zeros(2, np.float32), np.ones(2, np.float32)
        instance = Instance(path, sha256_file(path), low, high, spec, 10.0, classes=1)
        measured = guard.measure(instance)
        assert len(measured.exact) >= 3
        (allowances[name],) = measured.allowance
    assert allowances["branch"] == pytest.approx(allowances["plain"], rel=0.5)
    assert allowances["plain"] > 1e-4, "a relative 1e-5 of the output, 1, would be far less"


@pytest.mark.parametrize("shape", ["[1, 4]", "[1, 1, 2, 2]"])
@pytest.mark.parametrize(
    ("first", "low"), [("r = Clip (x, zero, one)", 0.75), ("r = Relu (x)", 0.75), ("r = Abs (x)", 0.75)]
)
def test_a_relu_may_stand_on_the_input(first: str, low: float, shape: str, tmp_path: Path) -> None:
    """As `torch.clamp` of the pixels is written: y is the sum of four inputs, one of them within [-1, 0]."""
    path = tmp_path / "n.onnx"
    text = f"""<ir_version: 8, opset_import: ["" : 13]> net (float{shape} x) => (float[1, 1] y)
    <float zero = {{0}}, float one = {{1}}, float[4, 1] w = {{1, 1, 1, 1}}> {{
    {first} f = Flatten (r) y = MatMul (f, w) }}"""
    onnx.save(onnx.parser.parse_model(text), path)
    sizes = [int(size) for size in shape.strip("[]").split(",")][1:]
    lower, upper = (np.array(end, np.float32).reshape(sizes) for end in ([-1, 0.25, 0.25, 0.25], [0, 2, 2, 2]))
    for limit, status in ((low - 0.01, Status.UNSAT), (low + 0.01, Status.SAT)):
        spec = OutputSpec(((np.array([[1.0]]), np.array([limit])),))
        question = Instance(path, sha256_file(path), lower, upper, spec, 10.0, classes=1)
        assert _status(question, tmp_path) is status


def test_rounding_before_a_last_softmax_is_measured_there(tmp_path: Path) -> None:
    """Logits of 4000, whose steps in float32 are 2.4e-4: Softmax is 0 or 1 nearly everywhere, and tells nothing."""
    path = tmp_path / "n.onnx"
    text = """<ir_version: 8, opset_import: ["" : 13]> net (float[1, 2] x) => (float[1, 2] y)
    <float[2, 2] w = {3000.1, 3000.1, 1000.3, 1000.3}, float[2] v = {0.0001, 0}> { h = MatMul (x, w) z = Add (h, v)
    y = Softmax (z) }"""
    onnx.save(onnx.parser.parse_model(text), path)
    lower, upper = np.zeros(2, np.float32), np.ones(2, np.float32)
    (output,) = counterexample.outputs(path, upper[None])
    assert output[0] == output[1], "the logits differ by 0.0001, which is lost"
    spec = OutputSpec(((np.array([[1.0, -1.0]]), np.array([0.0])),))
    question = Instance(path, sha256_file(path), lower, upper, spec, 10.0, label=0, classes=2)
    assert _status(question, tmp_path) is Status.UNKNOWN
    wider = text.replace("0.0001", "1")
    onnx.save(onnx.parser.parse_model(wider), path)
    question = Instance(path, sha256_file(path), lower, upper, spec, 10.0, label=0, classes=2)
    assert _status(question, tmp_path) is Status.UNSAT


@pytest.mark.parametrize("like", ["l = Less (b, k)", "v, l = TopK <axis = 1> (b, n)", "l = QuantizeLinear (b, k)"])
def test_a_cast_to_the_type_of_what_is_no_real_number_is_refused(like: str, tmp_path: Path) -> None:
    body = f"{like} h = CastLike (b, l) f = Cast <to = 1> (h) y = Sub (b, f)"
    path = _file(tmp_path / "n.onnx", body, "int64[1] n = {1}")
    with pytest.raises((UserError, UnsupportedError), match=r"rounds what depends on the input to|a quantised network"):
        _status(_asked(path, [1.0], 0.5), tmp_path)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("more", ["Gather <axis = 1> (p, chosen)", "Slice (p, zero, two, one)"])
def test_what_drops_values_of_a_softmax_is_refused(operator: str, more: str, tmp_path: Path) -> None:
    """Those that are left say nothing of a dropped one that makes all of them 0."""
    path = tmp_path / "n.onnx"
    text = f"""<ir_version: 8, opset_import: ["" : 13]> net (float[1, 3] x) => (float[1, 2] y)
    <int64[2] chosen = {{0, 1}}, int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[1] one = {{1}}> {{
    p = {operator} (x) y = {more} }}"""
    onnx.save(onnx.parser.parse_model(text), path)
    low, high = np.array([1, 0.5, 0], np.float32), np.array([1, 0.5, 300], np.float32)
    spec = OutputSpec(((np.array([[1.0, -1.0]]), np.array([0.0])),))
    question = Instance(path, sha256_file(path), low, high, spec, 10.0, classes=2)
    with pytest.raises(UserError, match=f"it comes after {operator}"):
        _status(question, tmp_path)


def test_rounding_before_a_softmax_goes_with_the_outputs_that_it_moves(tmp_path: Path) -> None:
    """The first logit is the sum of numbers that cancel; its outputs are turned round, and so must its allowance be."""
    allowances = {}
    for name, order in (("plain", "[0, 1]"), ("turned", "[1, 0]")):
        path = tmp_path / f"{name}.onnx"
        text = f"""<ir_version: 8, opset_import: ["" : 13]> net (float[1, 2] x) => (float[1, 2] y)
        <float[2, 2] w = {{300000.3, 0.5, 300000.1, 0.25}}, float[2] v = {{-300000.2, 1}}> {{
        h = MatMul (x, w) z = Add (h, v) p = Softmax (z) t = Transpose <perm = {order}> (p) y = Reshape (t, shape) }}"""
        text = text.replace("float[2] v", "int64[2] shape = {1, 2}, float[2] v")
        onnx.save(onnx.parser.parse_model(text), path)
        rows = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
        spec = OutputSpec(tuple((row, np.zeros(1)) for row in rows))
        low, high = np.zeros(2, np.float32), np.ones(2, np.float32)
        question = Instance(path, sha256_file(path), low, high, spec, 10.0, classes=2)
        verifier = VERIFIERS.get("sparse-bab")
        reading = FileReading(path, question.onnx_sha256, 2, verifier.capabilities(), tmp_path / name)
        allowances[name] = reading.allowances(question)
    assert allowances["turned"] == pytest.approx(allowances["plain"])
    assert allowances["plain"][0] > 100 * allowances["plain"][1]


def test_a_constant_that_a_cast_rounds_is_refused(tmp_path: Path) -> None:
    """2049 is 2048 in 16 bits; onnxruntime, which has no kernel for Abs of 16 bits, drops the casts round it."""
    constants = "float[1] w = {2049}, float[1] m = {2048}, float[1] one = {1}"
    body = "q = Cast <to = 10> (w) r = Abs (q) t = Cast <to = 1> (r) d2 = Sub (t, m) h = Mul (b, d2) y = Sub (one, h)"
    with pytest.raises(UserError, match="computes constants in 16 bits"):
        _status(_asked(_file(tmp_path / "n.onnx", body, constants), [1.0], 0.5), tmp_path)
