from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from prunecert.bench.comparison import run
from prunecert.bench.comparison.loop import NeuralSatCommand
from prunecert.bench.comparison.measure import Ended
from prunecert.bench.comparison.request import ComparisonRequest
from prunecert.bench.results.vnncomp import Key
from prunecert.errors import UserError
from tests.bench.comparison.sidekit import CELL, task


def test_samples_are_drawn_by_the_seed(tmp_path: Path) -> None:
    instances = [(Key(CELL, image), task(tmp_path, image)) for image in range(9)]
    assert run.draw_sample(instances, None, 0) == instances
    assert run.draw_sample(instances, 4, 1) == run.draw_sample(instances, 4, 1)
    assert len({tuple(key for key, _ in run.draw_sample(instances, 4, seed)) for seed in range(5)}) > 1


class Commands:
    """In place of a meter: writes down what would be run, and ends as it is told."""

    commands: list[list[str]]
    codes: dict[str, int]
    peak_mb = 1.0

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        return None

    def run(self, command: Sequence[str], log: Path) -> Ended:
        self.commands.append(list(command))
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("begun\nit broke\n")
        return Ended(self.codes[command[2]], 1.0)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> type[Commands]:
    """The commands of a comparison, none of which is run."""
    fresh: Any = type("Fresh", (Commands,), {"commands": [], "codes": {}})
    monkeypatch.setattr(run, "Meter", fresh)
    monkeypatch.setattr(NeuralSatCommand, "__init__", lambda _: None)
    monkeypatch.setattr(NeuralSatCommand, "version", "1", raising=False)
    return fresh  # type: ignore[no-any-return]


def test_a_command_that_fails_ends_the_comparison(
    tmp_path: Path, commands: type[Commands], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ComparisonRequest(suite="cifar10-4nets", cells=CELL, images=2, out=tmp_path, sides="run,loop", workers=2)
    commands.codes = {"prunecert.bench.export": 2, "prunecert.bench.run": 2}
    with pytest.raises(UserError, match=r"Exporting failed: it broke \(see .*export\.log"):
        run.run_comparison(request)
    (export,) = commands.commands
    assert export[3:9] == ["--suite", "cifar10-4nets", "--profile", "default", "--cells", CELL]
    assert export[export.index("--images") + 1] == "2"

    commands.codes["prunecert.bench.export"] = 0
    monkeypatch.setattr(run, "read_keys", lambda _: [Key(CELL, 1)])
    monkeypatch.setattr(run, "read_instances", lambda _: [task(tmp_path, 1)])
    monkeypatch.setattr(run, "identity", lambda _: "hash")
    old = tmp_path / "run" / "instances.main.jsonl"
    old.parent.mkdir()
    old.touch()
    with pytest.raises(UserError, match=r"ended with status 2; see .*run\.log"):
        run.run_comparison(request)
    # What an earlier run has done would not be measured.
    assert not old.exists()
    words = commands.commands[-1]
    assert words[words.index("--workers") + 1] == "2"
    assert "neuralsat" in words[words.index("--verifiers") + 1]
