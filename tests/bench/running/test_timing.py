from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from prunecert.bench.results.merge import merge
from prunecert.errors import UserError
from prunecert.models.filled import fill_zeros
from prunecert.onnx.count import count_shapes
from prunecert.verifiers.formats.counterexample import outputs
from tests.bench.conftest import CELLS, Zoo
from tests.bench.rowkit import documents

Run = Callable[..., int]
TIMING = """\
  timing:
    images: 5
    repeats: 2
    chunk: 3
    control: [fake-bound]
    optional: [fake-missing]
    by_verifier: {fake-complete: {repeats: 1, images: 3}, fake-bound: {batch: 3}}
profiles:"""


@pytest.fixture
def clock(zoo: Zoo, tmp_path: Path) -> str:
    path = tmp_path / "clock.yaml"
    text = zoo.suite.read_text().replace("name: tiny", "name: clock").replace("profiles:", TIMING)
    path.write_text(
        text.replace("cascade: [fake-bound, fake-complete]", "cascade: [fake-bound, fake-complete, fake-missing]")
    )
    return str(path)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares what takes longest and another test looks at."""
    monkeypatch.setattr("prunecert.bench.report.timing_figures.save", lambda summary, folder: [])
    monkeypatch.setattr("prunecert.bench.report.timing_table.html", lambda summary: "")


def rows(out: Path, kind: str) -> list[dict[str, Any]]:
    return documents(out, kind)


@pytest.mark.draws
@pytest.mark.slow
def test_a_timing_run(run: Run, clock: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert run(out, "--suite", clock) == 0
    printed = capsys.readouterr().out
    assert "left out: fake-missing (install fake-missing by hand.)" in printed
    verdicts = rows(out, "verdict")
    masked, small, thin = f"{CELLS[0]}_masked", f"{CELLS[1]}_compact", f"{CELLS[1]}_masked"
    filled = f"{CELLS[1]}_filled"
    names = {row["cell"] for row in verdicts}
    assert {masked, thin, filled} <= names <= {masked, thin, filled, small, f"{CELLS[0]}_compact"}
    repeats_of = Counter((row["cell"], row["verifier"], row["repeat"]) for row in verdicts)
    for name in names:
        assert repeats_of[name, "fake-bound", 1] == repeats_of[name, "fake-bound", 2] == 5
        # The control is for the verifiers that are named only; others take what their dose says.
        assert repeats_of[name, "fake-complete", 1] == (0 if name == filled else 3)
        assert repeats_of[name, "fake-complete", 2] == 0
    assert len({row["id"] for row in verdicts}) == len(verdicts)
    assert {row["batch"] for row in verdicts if row["verifier"] == "fake-bound"} == {2, 3}
    # All networks are asked about the same images, which all of them get right.
    assert len({frozenset(row["image"] for row in verdicts if row["cell"] == name) for name in names}) == 1
    assert all(row["correct"] for row in rows(out, "image"))
    visits = rows(out, "visit")
    # A network whose turn comes twice running is there already.
    previous = None
    for row in visits:
        now = (row["cell"], row["verifier"])
        assert (row["load_s"] > 0) == (now != previous)
        previous = now
    assert sum(row["start_s"] > 0 for row in visits) == 2
    for row in verdicts:
        assert "load_s" not in row["times"]
        assert "start_s" not in row["times"]
    for name in ("timing.json", "timing.md", "timing.html", "figures/factors-cnn-small-ibp-eps-2-255.svg"):
        assert (out / name).is_file()
        assert f"wrote {out / name}" in printed
    summary = json.loads((out / "timing.json").read_text())
    assert summary["finished"]
    assert summary["threads"] >= 1
    shapes = {network["name"]: network["shapes"] for network in summary["groups"][0]["networks"]}
    assert shapes[masked]["sparse_macs"] == shapes[masked]["macs"] == shapes[filled]["sparse_macs"]
    assert shapes[thin]["macs"] == shapes[masked]["macs"] > shapes[thin]["sparse_macs"]
    assert shapes[masked]["neurons"] == 6244
    page = (out / "timing.html").read_text()
    assert page.count("<svg role=") == 3
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_a_timing_run_goes_on_where_it_was_stopped(run: Run, clock: str, tmp_path: Path) -> None:
    from prunecert.bench.running.timing import TimeTaker

    out, real, left = tmp_path / "run", TimeTaker._visit, 5

    def stop(self: TimeTaker, *arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        real(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TimeTaker, "_visit", stop)
        with pytest.raises(KeyboardInterrupt):
            run(out, "--suite", clock)
    before = rows(out, "verdict")
    assert before
    assert run(out, "--suite", clock) == 0
    run(tmp_path / "calm", "--suite", clock)
    after = rows(out, "verdict")
    assert after[: len(before)] == before
    assert [row["id"] for row in after] == [row["id"] for row in rows(tmp_path / "calm", "verdict")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--workers", "2"), "--workers is refused: .* one verifier process works at a time"),
        (("--shard", "1/2"), "--shard is refused: .* different machines or loads"),
        (("--submit",), "--submit is refused"),
        (("--reuse", "earlier"), "--reuse is refused: .* taken here and now"),
        (("--device", "cuda:0,cuda:1"), "--device is refused"),
    ],
)
def test_what_would_spoil_times_is_refused(
    run: Run, clock: str, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", "--suite", clock, *options)


@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_times_of_two_machines_are_kept_apart(run: Run, clock: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(out, "--suite", clock, "--verifiers", "fake-complete")
    with pytest.raises(UserError, match="are times, and times of different runs are never put together"):
        merge([out], tmp_path / "joined")
    log = out / "instances.main.jsonl"
    session, rest = log.read_text().split("\n", 1)
    changed = json.loads(session)
    changed["machine"]["cpu"] = "another processor"
    log.write_text(json.dumps(changed, separators=(",", ":")) + "\n" + rest)
    with pytest.raises(UserError, match=r"holds times of another machine .*\(another processor"):
        run(out, "--suite", clock)


@pytest.mark.slow
def test_filled_zeros_change_nothing_but_the_zeros(zoo: Zoo, run: Run, tmp_path: Path) -> None:
    run(tmp_path / "run", "--images", "1", "--no-compact", "--verifiers", "fake-complete")
    source = next(path for path in zoo.exports.rglob(f"{CELLS[1]}.onnx") if path.parent.name == "onnx")
    target = tmp_path / "filled.onnx"
    fill_zeros(source, target)
    images = np.random.default_rng(3).random((20, 3, 32, 32), dtype=np.float32)
    assert np.abs(outputs(source, images) - outputs(target, images)).max() < 1e-5
    before, after = count_shapes(source), count_shapes(target)
    assert before.nonzero < before.weights
    assert after.nonzero == after.weights == before.weights
    weights = [
        {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer} for path in (source, target)
    ]
    for name, values in weights[0].items():
        changed = weights[1][name] != values
        assert np.array_equal(changed, (values == 0) & name.endswith("_weight"))
        assert np.abs(weights[1][name][changed]).max(initial=0.0) < 1e-7 * np.abs(values).max(initial=1.0)
