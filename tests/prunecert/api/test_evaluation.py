from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import prunecert
from prunecert.api.crew import CREW
from prunecert.api.evaluation import MISCLASSIFIED, Evaluation, Kept, Share
from prunecert.errors import UserError
from prunecert.verifiers.base import Instance, Status, Verdict


def result(statuses: Sequence[str], dense: Evaluation | None = None) -> Evaluation:
    verdicts = tuple(None if s == MISCLASSIFIED else Verdict(Status(s), "why", verifier="v") for s in statuses)
    labels = np.zeros(len(statuses), dtype=np.int64)
    return Evaluation("net", Fraction(1, 10), labels, labels, tuple(statuses), verdicts, 10.0, 5, ("v",), dense)


def test_what_is_undecided_lies_between_verified_and_attacked() -> None:
    one = result(["unsat", "sat", "timeout", "unknown", "misclassified", "unsat", "error", "misclassified"])
    assert (one.clean.count, one.attacked.count, one.verified.count, one.undecided) == (6, 5, 2, 3)
    assert one.verified.value <= one.attacked.value <= one.clean.value
    low, high = one.verified.interval
    assert 0 < low < float(one.verified) == 0.25 < high < 1
    assert one.kept is None
    assert one.failures == {"v: why": 1}
    assert "FAILED on 1" in repr(one)
    assert "fewer than 50" in one._repr_html_()


def test_what_is_kept_is_paired_by_image() -> None:
    dense = result(["unsat"] * 40 + ["sat"] * 20)
    pruned = result(["unsat"] * 30 + ["sat"] * 10 + ["unsat"] * 6 + ["sat"] * 14, dense)
    assert pruned.kept is not None
    assert pruned.kept.value == pytest.approx(36 / 40)
    assert 0 < pruned.kept.low < pruned.kept.value < pruned.kept.high
    assert repr(pruned).endswith(f"kept {pruned.kept}>")
    assert "fewer than" not in pruned._repr_html_()
    assert "kept of dense" in pruned._repr_html_()
    assert result(["sat"], result(["sat"])).kept is None
    assert repr(Kept(0.981, 0.95, 1.01)) == "98 % (95–101)"
    assert repr(Share(1, 2)) == "50.0 % (9.5–90.5)"


def test_a_frame_has_a_row_an_image() -> None:
    pytest.importorskip("pandas")
    frame = result(["unsat", "misclassified"], result(["sat", "sat"])).to_pandas()
    assert list(frame["status"]) == ["unsat", "misclassified"]
    assert list(frame["status_dense"]) == ["sat", "sat"]
    assert list(frame["verifier"]) == ["v", ""]


@pytest.mark.slow
def test_a_pruned_module_beside_its_dense_one(small: nn.Sequential) -> None:
    import copy

    pruned = copy.deepcopy(small)
    prune_all: Any = prune.l1_unstructured
    prune_all(pruned[4], "weight", amount=0.9)
    x = torch.rand(12, 1, 4, 4)
    with torch.no_grad():
        labels = small(x).argmax(1)
    lines: list[str] = []
    both = prunecert.evaluate(
        pruned, (x, labels), "2/255", dense=small, verifiers="sparse-ibp,sparse-bab", tell=lines.append
    )
    assert both.dense is not None
    assert both.dense.clean.count == both.dense.images == both.images == 12
    with torch.no_grad():
        assert both.clean.count == int((pruned(x).argmax(1) == labels).sum())
    assert both.undecided == both.dense.undecided == 0
    assert not both.failures
    assert both.verifiers == ("sparse-ibp", "sparse-bab")
    assert both.compression == pytest.approx(572 / (572 - 461), rel=0.01)
    assert any("sparse-bab" in line for line in lines)
    # Each image by itself says the same.
    for number in range(3):
        if both.statuses[number] != MISCLASSIFIED:
            alone = prunecert.verify(pruned, x[number], eps="2/255", label=int(labels[number]))
            assert str(alone.status) == both.statuses[number]


@pytest.mark.slow
def test_who_comes_later_is_asked_about_what_is_open_alone(small: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(4, 1, 4, 4)
    with torch.no_grad():
        labels = small(x).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    questions: dict[str, list[str]] = {}
    answers = {
        "pgd": [Status.SAT, Status.ERROR, Status.UNKNOWN],
        "sparse-bab": [Status.TIMEOUT, Status.UNSAT],
    }

    def reply(verifier: str, instances: Sequence[Instance], **_: Any) -> list[Verdict]:
        questions[verifier] = [instance.name for instance in instances]
        return [Verdict(status, "why", verifier=verifier) for status in answers[verifier]]

    monkeypatch.setattr(CREW, "ask", reply)
    evaluation = prunecert.evaluate(small, (x, labels), 0.1, verifiers="pgd,sparse-bab")
    assert questions == {"pgd": ["image 1", "image 2", "image 3"], "sparse-bab": ["image 2", "image 3"]}
    # That somebody failed stays in sight.
    assert evaluation.statuses == ("misclassified", "sat", "error", "unsat")
    assert evaluation.failures == {"pgd: why": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"data": (torch.rand(2, 1, 4, 4), [0, 9])}, "reach up to 9, and the network has 3"),
        ({"data": (torch.rand(2, 1, 4, 4), [0])}, "2 inputs and 1 labels"),
        ({"eps": "x"}, "eps='x' is refused"),
        ({"timeout": -1}, "above 0, in seconds"),
        ({"dense": "cnn-small_ibp_eps2_lwm_x10_s0"}, r"takes \(3, 32, 32\)"),
        ({"images": 0}, "at least 1"),
    ],
)
def test_bad_input_is_one_sentence(arguments: dict[str, Any], why: str, small: nn.Module) -> None:
    with pytest.raises(UserError, match=why):
        prunecert.evaluate(
            **{"network": small, "data": (torch.rand(2, 1, 4, 4), [0, 1]), "eps": 0.1, "verifiers": "pgd", **arguments}
        )
