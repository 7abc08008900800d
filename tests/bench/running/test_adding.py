from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import nn

from prunecert.bench import add, baseline
from prunecert.bench.planning.module_export import export_module
from prunecert.bench.running.adding import Addition, KeptAccuracy, kept_accuracies, run_folder, suite_of
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from prunecert.models.datasets.source import load_split, source_of
from tests.verifiers import onnxnets

RADII = (Fraction(2, 255), Fraction(1, 10))


def test_an_addition_is_a_suite_that_can_be_run_again(tmp_path: Path) -> None:
    for name in ("p", "d"):
        onnxnets.linear(tmp_path / f"{name}.onnx")
    addition = Addition(
        network=str(tmp_path / "p.onnx"), dense=str(tmp_path / "d.onnx"), radii=RADII, out=tmp_path, data="digits"
    )
    suite = suite_of(addition)
    assert suite["cells"][0]["eps"] == ["2/255", "1/10"]
    assert "sparse-bab" in suite["verify"]["cascade"]
    assert set(suite["verify"]["timeouts"]) == set(suite["verify"]["cascade"])
    path = tmp_path / "suite.yaml"
    path.write_text(json.dumps(suite))
    assert [cell.pruner for cell, _ in load_suite(str(path)).cells] == ["dense", "pruned"] * 2


@pytest.mark.parametrize(
    ("network", "dense", "why"), [("net.pt", "", "refused; give"), ("a.onnx", "my.nets:make", "of the same kind")]
)
def test_other_kinds_are_refused(network: str, dense: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why):
        suite_of(Addition(network=network, dense=dense, radii=RADII, out=tmp_path))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nope.onnx"], "^The network 'nope.onnx' is refused: there is no such file"),
        (["net.onnx", "--dense", "nope.onnx"], "^The network 'nope.onnx' is refused"),
        (["net.onnx", "--verifiers", "pgdd"], "^Unknown verifier 'pgdd'. Did you mean 'pgd'"),
    ],
)
def test_what_was_typed_is_refused_as_it_was_typed(
    words: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnxnets.linear(tmp_path / "net.onnx")
    with pytest.raises(UserError, match=why):
        add.main([*words, "--data", "digits", "--eps", "2/255"])
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"], "no folder of a run that never was"


def test_what_is_kept_is_a_sentence() -> None:
    line = str(KeptAccuracy("mine", "2/255", 16.0, (0.97, 0.83, 1.13), (30, 31), 40))
    assert line == (
        "mine at 2/255: 97 % of the dense network's verified accuracy is kept at 16x (83–113 %; 30 of 40 images, dense "
        "31; few images, so mind the interval)"
    )


@pytest.mark.slow
def test_the_command_runs_compares_and_says_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    for name, sparsity in (("p", 0.3), ("d", 0.0)):
        export_module(connected(sparsity), tmp_path / f"{name}.onnx", torch.rand(1, 1, 8, 8))
    words = ["p.onnx", "--dense", "d.onnx", "--data", "digits", "--eps", "1/1000", "--images", "30", "--out", "run"]
    assert add.main([*words, "--verifiers", "sparse-ibp,sparse-bab"]) == 0
    shown = capsys.readouterr().out
    (kept,) = kept_accuracies(tmp_path / "run")
    assert str(kept) in shown
    assert kept.images == 30
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    dense, pruned = summary["cells"]
    assert (kept.verified[0], kept.verified[1]) == (pruned["verified"]["k"], dense["verified"]["k"])
    assert kept.ratio[0] == pytest.approx(kept.verified[0] / kept.verified[1])


@pytest.mark.slow
def test_a_network_that_nobody_takes_is_no_result_and_no_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    words = ["--data", "digits", "--eps", "1/1000", "--images", "10", "--verifiers", "sparse-ibp", "--out", "run"]
    assert add.main(["tests.bench.running.test_adding:gelu", *words]) == 2
    shown = capsys.readouterr().out
    assert "NOT VERIFIED: no verifier that was asked takes gelu_own_eps0.255_own" in shown
    assert "Erf" in shown
    with pytest.raises(UserError, match="no verifie"):
        baseline.main(["--run", "run", "--out", "b.json", "--reason", "none"])
    assert not (tmp_path / "b.json").exists()


def connected(sparsity: float) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10)).eval()
    weight = net[1].get_parameter("weight")
    with torch.no_grad():
        weight.mul_(torch.rand(weight.shape) >= sparsity)
        # Without training it would know no digit: the mean image of each class is a feature.
        digits = load_split(source_of("digits"), "train")
        images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
        means = torch.stack([images[labels == label].mean(0).flatten() for label in range(10)])
        weight[:10] = means * (weight[:10] != 0)
        net[3].get_parameter("weight").copy_(torch.eye(10, 30))
        net[3].get_parameter("bias").copy_(-(means**2).sum(1) / 2)
    return net


def gelu() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 10))


@pytest.mark.parametrize(
    ("network", "name"),
    [
        ("a/b/net.onnx", "net"),
        ("x.v2.safetensors", "x.v2"),
        ("../..", "network"),
        ("m:f", "m-f"),
        ("ü ü.onnx", "network"),
    ],
)
def test_each_network_has_a_folder_of_its_own_that_lies_among_the_runs(network: str, name: str) -> None:
    assert run_folder(network) == Path("results/runs") / f"added-{name}"
