from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunecert
from prunecert.api.asking import ask, check_settings, chosen_verifiers, opened_network, supported
from prunecert.api.crew import CREW
from prunecert.errors import UserError
from prunecert.verifiers.base import Instance, Status, Times, Verdict
from tests.verifiers import onnxnets


@pytest.fixture(name="answers")
def _answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Verdict]:
    """What each verifier answers, in the place of a process; the question is noted under the verifier's name."""
    answers: dict[str, Verdict] = {}
    questions: list[tuple[str, Instance]] = []

    def reply(verifier: str, instances: Sequence[Instance], **_: Any) -> list[Verdict]:
        questions.extend((verifier, instance) for instance in instances)
        return [answers[verifier] for _ in instances]

    monkeypatch.setattr(CREW, "ask", reply)
    answers["questions"] = questions  # type: ignore[assignment]
    return answers


def verdict(status: Status, seconds: float = 1.0, verifier: str = "v") -> Verdict:
    return Verdict(status, "why", times=Times(wall_s=seconds, load_s=0.5), verifier=verifier)


@pytest.mark.slow
def test_a_module_is_proved_broken_and_broken_at_once(small: nn.Module) -> None:
    x = torch.full((1, 4, 4), 0.5)
    proved = prunecert.verify(small, x, eps="1/255")
    assert proved.status is Status.UNSAT
    assert repr(proved) == "<Verdict unsat: proved by sparse-bab>"
    assert "sparse-bab" in proved._repr_html_()
    # Trained for nothing, it has another class somewhere in the whole cube.
    broken = prunecert.verify(small, x[None], eps=1)
    assert broken.status is Status.SAT
    assert broken.witness is not None
    with torch.no_grad():
        classes = small(torch.from_numpy(np.stack([x.numpy(), broken.witness]))).argmax(1)
    assert classes[0] != classes[1]
    label = (int(classes[0]) + 1) % 3
    other = prunecert.verify(small, x, eps="1/255", label=label)
    assert (other.status, other.verifier) == (Status.SAT, "onnxruntime")
    assert np.array_equal(other.witness, x)  # type: ignore[arg-type]
    assert f"gives x itself another class than {label}: {int(classes[0])}" in repr(other)


@pytest.mark.slow
def test_the_same_content_at_another_path_is_answered(small: nn.Module, tmp_path: Path) -> None:
    """Each call exports the module anew."""
    x = torch.full((1, 4, 4), 0.5)
    statuses = [prunecert.verify(small, x, eps="1/255", verifiers="sparse-ibp").status for _ in range(2)]
    written = prunecert.export(small, tmp_path / "net.onnx", x)
    statuses.append(prunecert.verify(written.path, x, eps="1/255", verifiers=["sparse-ibp"]).status)
    assert statuses == [Status.UNSAT] * 3


def test_the_box_is_cut_off_at_the_bounds(small: nn.Module, answers: dict[str, Verdict]) -> None:
    answers["sparse-bab"] = verdict(Status.UNSAT)
    x = torch.linspace(0, 1, 16).reshape(1, 4, 4)
    for bounds, low, high in (((0.0, 1.0), 0.0, 1.0), (None, -0.25, 1.25), ((-0.125, 2.0), -0.125, 1.25)):
        prunecert.verify(small, x, eps=0.25, verifiers="sparse-bab", bounds=bounds)
        _, question = answers["questions"][-1]  # type: ignore[index]
        assert (float(question.lower.min()), float(question.upper.max())) == (low, high)
        assert question.eps == 0.25
        assert question.classes == 3


def test_verifiers_are_asked_in_turn_within_one_limit(tmp_path: Path, answers: dict[str, Any]) -> None:
    question = onnxnets.instance(onnxnets.linear(tmp_path / "net.onnx"), 0.1, timeout=10.0)
    answers |= {
        "a": verdict(Status.UNKNOWN, 3.0, "a"),
        "b": verdict(Status.SAT, 4.0, "b"),
        "c": verdict(Status.UNSAT, 1.0, "c"),
        "slow": verdict(Status.TIMEOUT, 30.0, "slow"),
        "bad": verdict(Status.ERROR, 1.0, "bad"),
    }
    decided = ask(question, ["a", "b", "c"])
    assert (decided.status, decided.verifier, decided.times.wall_s) == (Status.SAT, "b", 7.0)
    # Loading doesn't count towards the limit.
    assert [instance.timeout for _, instance in answers["questions"]] == [10.0, 7.5]
    assert ask(question, ["slow", "c"]).status is Status.TIMEOUT
    assert ask(question, ["a", "bad"]).verifier == "a"
    assert ask(question, ["bad"]).status is Status.ERROR


def test_verifiers_are_chosen_by_name_or_by_what_is_installed() -> None:
    assert chosen_verifiers(None, ["sparse-bab", "abcrown-of-nowhere"][:1]) == ("sparse-bab",)
    assert (
        chosen_verifiers("pgd, sparse-bab,pgd", [])
        == chosen_verifiers(["pgd", "sparse-bab"], [])
        == ("pgd", "sparse-bab")
    )
    for names, why in ((" , ", "is empty"), ("sparse-bap", "Did you mean"), ("smoothing", "prove nothing")):
        with pytest.raises(UserError, match=why):
            chosen_verifiers(names, [])


@pytest.mark.slow
def test_a_network_that_nobody_takes_is_refused_with_the_layer(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)).eval()
    written = prunecert.export(net, tmp_path / "net.onnx", torch.rand(1, 1, 2, 2))
    with pytest.raises(UserError, match=r"No verifier that was asked takes this network \(sparse-bab, pgd\).*\n.*Erf"):
        supported(["sparse-bab", "pgd"], written.path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"eps": 8}, 'eps="8/255"'),
        ({"timeout": 0}, "above 0, in seconds"),
        ({"label": 3}, "from 0 to 2"),
        ({"x": torch.full((1, 4, 4), 9.0)}, "pass x / 255"),
        ({"x": torch.zeros(1, 5, 5)}, "doesn't take an input"),
        ({"x": torch.zeros(6, 1, 4, 4)}, "prunecert.evaluate"),
        ({"network": "cnn-smal"}, "Unknown checkpoint"),
        ({"network": "nowhere.onnx"}, "can't be read"),
        ({"verifiers": "nobody"}, "Unknown verifier"),
        ({"bounds": (0.4, 0.6)}, "inputs are within"),
        ({"bounds": (1, 0)}, "the lowest and the highest"),
        ({"device": 0}, "allowed are 'cpu'"),
        ({"network": "net.pt"}, "load it with that code, and pass the module"),
    ],
)
def test_bad_input_is_one_sentence(arguments: dict[str, Any], why: str, small: nn.Module) -> None:
    with pytest.raises(UserError, match=why):
        prunecert.verify(**{"network": small, "x": torch.linspace(0, 1, 16).reshape(1, 4, 4), "eps": 0.1, **arguments})


@pytest.mark.parametrize("verifiers", [5, ["pgd", None], {1: "pgd"}])
def test_verifiers_that_are_no_names_are_refused(verifiers: Any) -> None:
    with pytest.raises(UserError, match="pass names"):
        chosen_verifiers(verifiers, ("pgd",))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"pgdd": {"steps": 3}}, "Did you mean 'pgd'"),
        ({"pgd": {"steps": 3}}, "it isn't asked; asked are sparse-bab"),
        ({"sparse-bab": 3}, "write {"),
        ([], "write settings="),
    ],
)
def test_settings_that_nobody_would_look_at_are_refused(settings: Any, why: str) -> None:
    check_settings({"sparse-bab": {"candidates": 3}}, ["sparse-bab"])
    with pytest.raises(UserError, match=why):
        check_settings(settings, ["sparse-bab"])


class Clamping(nn.Module):
    """Changes the array that it is called with."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        x.sub_(0.25).clamp_(min=0.0)
        return self.inner(x)


def test_a_module_that_works_in_place_is_asked_about_the_image_as_it_was(
    small: nn.Module, answers: dict[str, Any]
) -> None:
    """Its own image is what a verdict is about, and the caller's array stays what it is."""
    answers["sparse-bab"] = verdict(Status.UNSAT)
    x = torch.linspace(0, 1, 16).reshape(1, 4, 4)
    before = x.clone()
    prunecert.verify(Clamping(small).eval(), x, eps=0.05, verifiers="sparse-bab")
    assert torch.equal(x, before)
    ((_, question),) = answers["questions"]
    assert np.allclose((question.lower + question.upper)[0, 1:3] / 2, before[0, 1:3].numpy())
    read_only = np.broadcast_to(np.float32(0.5), (1, 4, 4))
    assert prunecert.verify(small, read_only, eps=0.05, verifiers="sparse-bab").status is Status.UNSAT


def test_a_checkpoint_is_taken_by_its_name(answers: dict[str, Verdict]) -> None:
    answers["sparse-bab"] = verdict(Status.UNSAT)
    x = torch.full((3, 32, 32), 0.5)
    assert prunecert.verify("cnn-small_ibp_eps2_lwm_x10_s0", x, eps="1/255").status is Status.UNSAT
    with pytest.raises(UserError, match="channels come last"):
        prunecert.verify("cnn-small_ibp_eps2_lwm_x10_s0", x.permute(1, 2, 0), eps="1/255")


def test_a_network_of_one_output_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="1 output; a classifier"),
        opened_network(onnxnets.linear(tmp_path / "net.onnx", outputs=1), None),
    ):
        pass
