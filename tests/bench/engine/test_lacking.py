"""What else a network lacks, behind what the reader refuses first."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from prunecert.bench.engine import lacking as module
from prunecert.bench.engine.lacking import Lack, Lacking, in_few_words, lacking
from prunecert.onnx.io import load_model
from prunecert.onnx.normal import UnsupportedNetworkError
from prunecert.onnx.normalise import normalise
from prunecert.verifiers.process.inspection import Inspection

HEAD = '<ir_version: 8, opset_import: ["": 13]> net '
ENTRY = "(float[1, 4] x) => (float[1, {size}] y) <float[4, 4] w = {{1, 0, 2, -1, 0, 1, 1, 1, 2, 0, 0, 1, 1, 1, 0, 3}}> "
SIN, COS = Lack("Sin", "isn't read"), Lack("Cos", "isn't read")
PRODUCT = Lack("Mul", "both its factors depend on the network's input")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are read without the limits of a process of its own, which takes a second to start."""

    def inspect(path: Path, *, keep: object, outputs: int | None) -> Inspection:
        del keep
        try:
            form = normalise(load_model(path), outputs=outputs)
        except UnsupportedNetworkError as error:
            return Inspection((), None, refusal=str(error))
        return Inspection((), form.outputs)

    monkeypatch.setattr(module, "inspect_network", inspect)


def network(folder: Path, body: str, size: int = 4) -> Path:
    path = folder / "net.onnx"
    onnx.save(onnx.parser.parse_model(HEAD + ENTRY.format(size=size) + "{" + body + "}"), path)
    return path


@pytest.mark.parametrize(
    ("body", "size", "lacks"),
    [
        ("h = Gemm(x, w) y = Relu(h)", 4, ()),
        ("h = Gemm(x, w) y = Sin(h)", 4, (SIN,)),
        # The second one is refused only where the first one isn't.
        ("h = Sin(x) k = Cos(h) y = Gemm(k, w)", 4, (SIN, COS)),
        ("h = Sin(x) k = Sin(h) y = Gemm(k, w)", 4, (SIN,)),
        ("h = Gemm(x, w) k = Mul(h, x) l = Cos(k) y = Relu(l)", 4, (PRODUCT, COS)),
        # A result of another shape than what it is made of.
        ("h = MatMul(x, w) k = Transpose(h) l = MatMul(h, k) y = Cos(l)", 1,
         (Lack("MatMul", PRODUCT.reason), COS)),
        # The operator that must be the last is named, not the one behind it.
        ("h = Softmax(x) k = Gemm(h, w) y = Cos(k)", 4, (Lack("Softmax", "not the last operator"), COS)),
        ("h = Sign(x) k = Sin(x) y = Concat <axis = 1> (h, k)", 8, (Lack("Sign", "isn't read"), SIN)),
    ],
)  # fmt: skip
def test_all_that_is_lacking_is_named_once(tmp_path: Path, body: str, size: int, lacks: tuple[Lack, ...]) -> None:
    path = network(tmp_path, body, size)
    assert lacking(path, tmp_path) == Lacking(lacks)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_shapes_that_a_file_leaves_open_are_those_of_a_run(tmp_path: Path) -> None:
    path = network(tmp_path, "h = Sin(x) s = Shape(h) k = Reshape(h, s) l = Cos(k) y = Gemm(l, w)")
    model = load_model(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    onnx.save(model, path)
    assert lacking(path, tmp_path) == Lacking((SIN, COS))


def test_a_network_that_is_not_read_to_its_end_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = network(tmp_path, "h = Sin(x) k = Cos(h) y = Gemm(k, w)")
    monkeypatch.setattr(module, "MOST", 1)
    assert lacking(path, tmp_path) == Lacking((SIN,), whole=False)
    monkeypatch.undo()


@pytest.mark.parametrize(
    "second",
    [
        "The node 'k' (Cos) isn't taken: a rearranged value of 9 elements would need a matrix.",
        "Its output 'y' isn't taken. A rearranged value of 9 elements would need a matrix of 81 weights.",
    ],
)
def test_what_only_stand_ins_make_so_is_not_the_networks(
    second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = network(tmp_path, "h = Sin(x) k = Cos(h) y = Gemm(k, w)")
    sentences = iter(
        [
            "net is refused. The node 'h' (Sin) isn't taken: of what depends on the input, taken are Abs.",
            f"net is refused. {second}",
        ]
    )
    monkeypatch.setattr(module, "inspect_network", lambda *_, **__: Inspection((), None, refusal=next(sentences)))
    assert lacking(path, tmp_path) == Lacking((SIN,), whole=False)


def test_a_refusal_that_names_no_node_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = network(tmp_path, "y = Relu(x)")
    refusal = "net.onnx is refused. It takes 7 samples at once (input [7, 4]); allowed is one."
    monkeypatch.setattr(module, "inspect_network", lambda *_, **__: Inspection((), None, refusal=refusal))
    assert lacking(path, tmp_path) == Lacking((Lack("", "It takes 7 samples at once"),), whole=False)


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("of what depends on the input, taken are Abs, Add.", "isn't read"),
        ("export the network without it: the property speaks of the scores.", "isn't read"),
        ("it is no affine function; allowed is the exponent 1.", "it is no affine function"),
        ("x" * 500, "x" * 500),
    ],
)
def test_few_words_leave_out_what_is_allowed(sentence: str, words: str) -> None:
    assert in_few_words(sentence) == words or (len(words) > 90 and len(in_few_words(sentence)) <= 91)
