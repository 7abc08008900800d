"""Which networks of a folder of benchmarks are taken, and what the others lack."""

from __future__ import annotations

import gzip
from pathlib import Path

import onnx
import pytest

from prunecert.bench.engine import operators
from prunecert.bench.engine.lacking import Lack, Lacking
from prunecert.bench.engine.operators import BenchmarkNetwork, by_benchmark, by_lack, by_network, lists, main, survey
from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from tests.verifiers import onnxnets

SIN, COS = Lack("Sin", "isn't read"), Lack("Cos", "isn't read")
NETWORKS = [
    BenchmarkNetwork("a", "one.onnx", 3, "taken", ("Gemm", "Relu")),
    BenchmarkNetwork("a", "two.onnx", 4, "refused", ("Sin", "Gemm"), Lacking((SIN,))),
    BenchmarkNetwork("b", "three.onnx", 5, "refused", ("Sin", "Cos"), Lacking((COS, SIN))),
    BenchmarkNetwork("b", "four.onnx", 6, "not stored"),
    BenchmarkNetwork("c", "five.onnx", 7, "refused", ("Cos",), Lacking((COS,), whole=False)),
]


def cells(lines: list[str]) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_benchmarks_say_what_is_taken_and_the_first_reason_of_what_is_not() -> None:
    assert cells(by_benchmark(NETWORKS).markdown()) == [
        ["a", "7", "2", "1 (3)", "1 (4)", "", "Sin (isn't read)", "Gemm, Relu, Sin"],
        ["b", "11", "2", "", "1 (5)", "1 (6)", "Cos (isn't read)", "Cos, Sin"],
        ["c", "7", "1", "", "1 (7)", "", "Cos (isn't read)", "Cos"],
    ]


def test_what_unlocks_alone_is_told_from_what_is_needed_with_others() -> None:
    assert cells(by_lack(NETWORKS).markdown()) == [
        ["Sin (isn't read)", "4", "5", "a, b"],
        # The network of c may lack more: nothing is known to unlock it.
        ["Cos (isn't read)", "0", "12", "b, c"],
    ]
    assert cells(by_network(NETWORKS).markdown()) == [
        ["Cos (isn't read), and perhaps more", "7", "1", "c"],
        ["Cos (isn't read), Sin (isn't read)", "5", "1", "b"],
        ["Sin (isn't read)", "4", "1", "a"],
    ]


def benchmark(folder: Path) -> Path:
    """Writes a benchmark: a network, gzipped, that is asked about twice, and one that isn't there."""
    (folder / "onnx").mkdir(parents=True)
    path = onnxnets.linear(folder / "onnx" / "net.onnx")
    (folder / "onnx" / "net.onnx.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    rows = ["onnx/net.onnx,p.vnnlib,9", "onnx/net.onnx,q.vnnlib,9", "onnx/other.onnx,p.vnnlib,9"]
    (folder / "instances.csv").write_text("\n".join(rows) + "\n")
    return folder / "instances.csv"


def test_networks_are_read_where_they_are_whatever_becomes_of_the_properties(tmp_path: Path) -> None:
    networks = survey(benchmark(tmp_path / "bench" / "2.0"), VERIFIERS.get("sparse-bab"))
    assert [(item.benchmark, item.name, item.instances, item.state) for item in networks] == [
        ("bench", "net.onnx.gz", 2, "taken"),
        ("bench", "other.onnx", 1, "not stored"),
    ]
    assert "Gemm" in networks[0].operators


def test_a_file_that_is_no_network_of_one_input_is_refused_in_few_words(tmp_path: Path) -> None:
    file = benchmark(tmp_path / "b")
    (tmp_path / "b" / "onnx" / "other.onnx").write_bytes(b"nothing")
    _, other = survey(file, VERIFIERS.get("sparse-bab"))
    assert other.state == "refused"
    assert other.lacking.lacks[0].reason.startswith("other.onnx is refused because it is no ONNX network")
    assert str(tmp_path) not in other.lacking.lacks[0].reason


def test_lists_lie_in_a_folder_or_up_to_two_below(tmp_path: Path) -> None:
    first, second = benchmark(tmp_path / "a" / "1.0"), benchmark(tmp_path / "b")
    assert lists(tmp_path) == [first, second]
    second.rename(second.with_name("old_instances.csv"))
    assert lists(tmp_path / "b") == [second.with_name("old_instances.csv")]


def test_the_command_prints_its_tables_and_refuses_what_holds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark(tmp_path / "a")
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| a | 3 | 2 | 1 (2) |  | 1 (1) |  |" in printed
    assert printed.count("benchmarks |") == 2
    with pytest.raises(UserError, match="is no folder"):
        main([str(tmp_path / "none")])
    with pytest.raises(UserError, match=r"no instances\.csv"):
        main([str(tmp_path / "a" / "onnx")])
    with pytest.raises(UserError, match="Did you mean"):
        main([str(tmp_path), "--verifier", "sparse-bba"])


def test_properties_tell_which_of_several_outputs_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "b"
    file = benchmark(folder)
    chosen: list[int | None] = []

    def lacking(_path: Path, _folder: Path, _keep: object, outputs: int | None) -> Lacking:
        chosen.append(outputs)
        return Lacking((SIN,))

    monkeypatch.setattr(operators, "lacking", lacking)
    # Of a network with one output no property is read, be it there or not.
    survey(file, VERIFIERS.get("sparse-bab"))
    text = (
        '<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y, float[1, 4] z) '
        "{ y = Relu(x) z = Concat <axis = 1> (x, y) }"
    )
    onnx.save(onnx.parser.parse_model(text), folder / "onnx" / "other.onnx")
    survey(file, VERIFIERS.get("sparse-bab"))
    names = [*(f"X_{i}" for i in range(2)), *(f"Y_{i}" for i in range(4))]
    lines = [*(f"(declare-const {name} Real)" for name in names), *(f"(assert (<= {name} 1))" for name in names)]
    (folder / "p.vnnlib").write_text("\n".join([*lines, "(assert (>= X_0 0))", "(assert (>= X_1 0))"]))
    survey(file, VERIFIERS.get("sparse-bab"))
    assert chosen == [None, None, None, None, 4]
