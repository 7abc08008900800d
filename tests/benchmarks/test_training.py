"""The benchmark of a training step trains what it says, takes turns, and compares trees."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from prunecert.models import training as module
from prunecert.models.pruners.contract import Group
from prunecert.models.recipe import Recipe
from tests import house
from tests.benchmarks import training
from tests.benchmarks.training import WAYS, Tree, fused, in_turn, main, measure, rounds_of, unpacked

JOB: dict[str, Any] = {
    "network": "cnn-small",
    "objective": "ibp",
    "recipe": {},
    "batch": 4,
    "batches": 2,
    "device": "cpu",
    "threads": 0,
}


def test_all_ways_are_ratios_of_one_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    recipes: list[Recipe] = []
    plain = module.Trainer.run

    def run(self: module.Trainer, *arguments: Any, **keys: Any) -> Any:
        recipes.append(self.recipe)
        assert len(self.labels) == 8
        return plain(self, *arguments, **keys)

    monkeypatch.setattr(module.Trainer, "run", run)
    ways = ",".join(WAYS)
    sizes = ["--batch", "4", "--batches", "2", "--rounds", "1"]
    assert main(["--networks", "cnn-small", "--objectives", "ibp", "--ways", ways, *sizes]) == 0
    head, _, row = capsys.readouterr().out.splitlines()
    assert head == f"| network | objective | images/s | {' | '.join(WAYS)} |"
    assert re.fullmatch(r"\| cnn-small \| ibp \| [\d,]+ \|( \d+\.\d\d \|){7}", row)
    assert len(recipes) == 2 * (1 + len(WAYS))
    half = recipes[: len(recipes) // 2]
    assert half == recipes[len(half) :], "all take turns"
    assert {recipe.batch_size for recipe in half} == {4}
    assert [recipe.precision for recipe in half[:4]] == ["float32", "bfloat16", "float32", "bfloat16"]
    assert [recipe.memory_format for recipe in half[:4]] == ["contiguous", "contiguous", *2 * ["channels-last"]]
    assert half[-2].optimizer == "radam"
    assert half[-1].grad_clip == 0


def test_a_fused_step_is_the_same_step() -> None:
    weights = []
    for value in (True, False, None):
        with fused(value) if value is not None else nullcontext():
            torch.manual_seed(0)
            group = Group([torch.nn.Parameter(torch.linspace(-1, 1, 50))])
            # As training calls it.
            optimizer = vars(module)["optimizer_of"]([group], Recipe(), 0.01, torch.device("cpu"))
            if value is not None:
                assert optimizer.param_groups[0]["fused"] is value
            for _ in range(3):
                (weight,) = group.parameters
                optimizer.zero_grad()
                weight.pow(3).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            weights.append(weight.detach().clone())
    assert torch.allclose(weights[0], weights[1], atol=1e-6)
    assert torch.equal(weights[1], weights[2]), "it isn't the default on the CPU"
    assert not torch.equal(weights[0], torch.linspace(-1, 1, 50))


def test_medians_are_compared_and_the_first_round_is_left_out() -> None:
    calls: list[str] = []

    def work(name: str, seconds: list[float]) -> Any:
        def call() -> float:
            calls.append(name)
            return seconds.pop(0)

        return call

    assert in_turn({"a": work("a", [100, 1, 2, 9]), "b": work("b", [0, 4, 8, 6])}, 3) == {"a": 2, "b": 6}
    assert calls == list("abababab")


def test_a_round_moves_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[torch.nn.Module] = []
    plain = module.Trainer.run

    def run(self: module.Trainer, model: torch.nn.Module, *arguments: Any) -> Any:
        models.append(model)
        return plain(self, model, *arguments)

    monkeypatch.setattr(module.Trainer, "run", run)
    work = rounds_of(JOB)
    assert work() > 0
    before = [parameter.detach().clone() for parameter in models[0].parameters()]
    work()
    assert all(not torch.equal(one, other) for one, other in zip(before, models[0].parameters(), strict=True))


def test_two_trees_are_compared_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {house.ROOT: 2.0, Path("other"): 4.0}
    events: list[tuple[str, Path]] = []

    class Fake:
        def __init__(self, root: Path, job: Any) -> None:
            self.root = root
            assert job == JOB

        def __call__(self) -> float:
            events.append(("round", self.root))
            return seconds[self.root]

        def close(self) -> None:
            events.append(("close", self.root))

    monkeypatch.setattr(training, "Tree", Fake)
    numbers = measure(JOB, [], 2, Path("other"))
    assert numbers["against"] == 0.5
    assert events == [*3 * [("round", house.ROOT), ("round", Path("other"))], *[("close", root) for root in seconds]]


def test_a_tree_works_in_a_process_of_its_own() -> None:
    tree = Tree(house.ROOT, JOB)
    assert tree() > 0
    assert tree() > 0
    tree.close()


def test_a_tree_that_can_not_train_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('this tree is too old')\n")
    tree = Tree(tmp_path, JOB)
    with pytest.raises(RuntimeError, match="can't train that"):
        tree()
    tree.close()
    assert "this tree is too old" in capfd.readouterr().err


def test_another_tree_than_the_one_that_is_meant_is_not_timed(tmp_path: Path) -> None:
    (tmp_path / "prunecert" / "models").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="is imported, which is not of"):
        rounds_of(JOB, tmp_path)


@pytest.mark.skipif(not (house.ROOT / ".git").exists(), reason="no checkout")
def test_a_revision_is_unpacked_as_it_was() -> None:
    with unpacked("HEAD") as root:
        assert (root / "prunecert" / "models" / "training.py").is_file()
    assert not root.exists()
