from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.running import training_progress
from prunecert.bench.running.training_progress import TrainingProgress, fitted, shown_seconds, told
from prunecert.models.history import HeldOutAccuracy
from prunecert.models.pipeline import Job
from prunecert.models.reports import EpochReport, StepReport
from tests.bench.trainkit import SUITE, jobs

ACCURACY = HeldOutAccuracy(images=200, clean=0.613, pgd=0.44, ibp=0.1, crown_ibp=0.371, seconds=1.0)


class Terminal(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def chosen(tmp_path: Path) -> list[Job]:
    file = tmp_path / "tiny.yaml"
    file.write_text(SUITE)
    return [job for job in jobs(str(file)) if job.seed == 0 and job.compression in (1, 10)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("prunecert.bench.running.training_progress.time.monotonic", lambda: now[0])
    monkeypatch.setenv("COLUMNS", "80")
    return now


def epoch(number: int, epochs: int = 2, held_out: HeldOutAccuracy | None = None) -> EpochReport:
    return EpochReport("pretrain", number, epochs, 1.23456, 1234.0, 30.0, 1.3 / 255, 1e-3, held_out)


def test_it_counts_what_will_be_trained(chosen: list[Job]) -> None:
    # Dense and LWM share two epochs of pre-training; drop-and-grow has its own; each has two more.
    assert TrainingProgress(chosen)._left == 2 + 2 + 3 * 2


def test_a_terminal_has_one_line_that_fits(chosen: list[Job], clock: list[float]) -> None:
    terminal = Terminal()
    progress = TrainingProgress(chosen, terminal)
    progress.begin(2, chosen[1])
    for step in range(1, 101):
        clock[0] += 0.05
        progress.step(StepReport("pretrain", 1, 2, step, 100, 1.2999 / 255))
    drawn = terminal.getvalue().split("\r\033[K")[1:]
    assert 20 <= len(drawn) <= 25, "no more than five a second"
    assert all(len(line) < 80 and "\n" not in line for line in drawn)
    assert re.search(r"pretrain 1/2  (9.|100)%  ε 1\.30/255", drawn[-1])
    assert drawn[-1].startswith("[2/3] cnn-small_na…")
    clock[0] = 30.0
    progress.epoch(epoch(1, held_out=ACCURACY))
    last = terminal.getvalue().split("\r\033[K")[-1]
    assert len(last) < 80
    assert "pretrain 1/2  ε 1.30/255" in last
    assert last.endswith("min left"), last
    progress.epoch(epoch(2))
    assert terminal.getvalue().endswith("\n"), "a stage's last line stays"


def test_a_file_has_a_line_an_epoch_and_few_between(chosen: list[Job], clock: list[float]) -> None:
    stream = io.StringIO()
    progress = TrainingProgress(chosen, stream)
    progress.begin(1, chosen[0])
    for step in range(1, 701):
        clock[0] += 1.0
        progress.step(StepReport("pretrain", 1, 2, step, 700, 0.0))
    progress.epoch(epoch(1, held_out=ACCURACY))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3, "two of an epoch of 700 seconds, and its own"
    assert "pretrain 1/2  43%  ε 0.00/255" in lines[0]
    assert lines[2].endswith("held out (200): clean 61 % PGD 44 % proved 37 %")
    assert "loss 1.235  1,234 images/s  1.8 h left" in lines[2]
    assert "\r" not in stream.getvalue()


def test_times_and_accuracies_are_short() -> None:
    assert [shown_seconds(s) for s in (0, 89, 90, 5400, 9000)] == ["0 s", "89 s", "2 min", "90 min", "2.5 h"]
    assert told(ACCURACY) == "clean 61 % PGD 44 % proved 37 %"
    assert told(HeldOutAccuracy(images=1, clean=1.0, noisy=0.5, seconds=0)) == "clean 100 % noisy 50 %"
    assert told(HeldOutAccuracy(images=1, clean=1.0, ibp=0.0, seconds=0)) == "clean 100 % proved 0 %"


text = st.text(st.characters(codec="ascii", exclude_characters="\n\r"), max_size=60)


@given(head=text, words=st.lists(text, max_size=6), width=st.integers(40, 120))
def test_a_line_never_runs_over(head: str, words: list[str], width: int) -> None:
    line = fitted(head, words, width)
    assert len(line) <= width
    whole = "  ".join([head, *filter(None, words)])
    assert line == whole or len(whole) > width


def test_noise_is_a_deviation(chosen: list[Job]) -> None:
    progress = TrainingProgress(chosen, io.StringIO())
    progress._noise = True
    assert progress._radius(0.25) == "σ 0.25"
    assert training_progress._SAID_S >= 60, "a log is not flooded"


def test_the_rest_is_estimated_without_the_start_and_without_what_was_trained_before(
    chosen: list[Job], clock: list[float]
) -> None:
    terminal = Terminal()
    progress = TrainingProgress(chosen, terminal)
    progress.begin(1, chosen[0])
    clock[0] = 1000.0  # Of loading and compiling, before the first step is over.
    for step in range(1, 11):
        progress.step(StepReport("pretrain", 2, 2, step, 10, 0.0))
        clock[0] += 1.0
    drawn = terminal.getvalue().split("\r\033[K")
    assert drawn[1].endswith("estimating")
    # The first of ten epochs was trained by another process; this one takes 10 s, and 8.1 are to come.
    assert progress._left == 9
    assert drawn[-1].endswith("80 s left")
    assert not terminal.getvalue().endswith("\n")
    progress.end()
    progress.end()
    assert terminal.getvalue().endswith("left\n"), "one line break, and one only"


def test_a_pre_training_that_is_found_is_not_to_come(chosen: list[Job], clock: list[float]) -> None:
    progress = TrainingProgress(chosen, io.StringIO())
    whole = progress._left
    progress.begin(1, chosen[0])
    progress.step(StepReport("finetune", 1, 2, 1, 700, 0.0))
    assert progress._left == whole - chosen[0].recipe.pretrain_epochs
    # The next cell shares it, and one that begins at the initial weights has none.
    for number in (2, 3):
        progress.begin(number, chosen[number - 1])
        progress.step(StepReport("sparse" if number == 3 else "finetune", 1, 2, 1, 700, 0.0))
    assert progress._left == whole - chosen[0].recipe.pretrain_epochs
    trained = TrainingProgress(chosen, io.StringIO())
    trained.begin(1, chosen[0])
    for stage in ("pretrain", "finetune"):
        trained.step(StepReport(stage, 1, 2, 1, 700, 0.0))
    assert trained._left == whole
    other = TrainingProgress(chosen, io.StringIO())
    other.begin(3, chosen[2])
    other.step(StepReport("sparse", 1, 2, 1, 700, 0.0))
    assert other._left == whole, "the pre-training of the others is still to come"
