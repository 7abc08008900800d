"""Pairs in a run: asked on every image's box, rows of their own, counted apart, and held against the verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from prunecert.bench.report import html, table
from prunecert.bench.results.store import Log
from prunecert.bench.results.summary import summarise
from prunecert.bench.run_options import request_of, run_parser
from prunecert.bench.running.pair_questions import known_pairs
from prunecert.bench.running.run import run_suite
from prunecert.bench.schema.alike import alike_spec
from prunecert.verifiers.base import Status
from prunecert.verifiers.formats.counterexample import outputs
from tests import inprocess
from tests.bench import pairkit
from tests.bench.rowkit import documents

ASKED = ("class", "difference:0.05")


def ask(suite: Path, out: Path, *more: str) -> tuple[int, str]:
    """Runs the suite; returns the exit code and what was said."""
    words = ["--suite", str(suite), "--out", str(out), "--workers", "1", "--data-root", str(suite.parent)]
    words += ["--exports", str(suite.parent / "exports"), *more]
    console = Console(record=True, width=250)
    result = run_suite(request_of(run_parser().parse_args(words), words), console)
    return result.exit_code, console.export_text()


@pytest.fixture(name="finished", scope="module")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("pairs")
    suite = pairkit.write(folder, "{alike: [class, 'difference:0.05'], verifiers: [sparse-pair, sparse-bab]}")
    with inprocess.verifiers():
        code, text = ask(suite, folder / "run")
    assert code == 0
    return folder / "run", text


@pytest.mark.slow
def test_each_image_of_each_pair_has_its_rows_and_no_verdict_is_among_them(finished: tuple[Path, str]) -> None:
    out, text = finished
    rows = documents(out, "pair")
    questions = {(row["cell"], row["alike"], row["image"]) for row in rows}
    pruned = ("light_own_eps5.1_pruned", "heavy_own_eps5.1_pruned")
    assert questions == {(name, alike, image) for name in pruned for alike in ASKED for image in range(pairkit.IMAGES)}
    assert {row["partner"] for row in rows} == {"light_own_eps5.1_dense", "heavy_own_eps5.1_dense"}
    assert {row["verifier"] for row in documents(out, "verdict")} == {"sparse-bab"}
    # What has no dense network beside it is named before anything is asked.
    assert text.index("alone_own_eps5.1_lwm: no dense network of its kind") < text.index("comparing 4 pairs")


@pytest.mark.slow
def test_what_was_answered_is_so(finished: tuple[Path, str]) -> None:
    """A proof holds at sampled points, a counterexample on both files, in the box."""
    out, _ = finished
    images = pairkit.pixels("test").images
    rng = np.random.default_rng(0)
    statuses = set()
    for row in documents(out, "pair"):
        name, spec = row["cell"].split("_")[0], alike_spec(row["alike"], pairkit.networks()["dense"].classes)
        files = (out.parent / "dense.onnx", out.parent / f"{name}.onnx")
        image = images[row["image"]]
        if row["status"] == "sat":
            points = np.load(out / row["witness"])[None]
            assert np.abs(points[0].astype(np.float64) - image).max() <= pairkit.EPS + 1e-7
        else:
            points = np.clip(image + pairkit.EPS * rng.uniform(-1, 1, (50, *image.shape)), 0, 1).astype(np.float32)
        both = np.concatenate([outputs(path, points) for path in files], axis=1)
        assert any(map(spec.violated_by, both)) == (row["status"] == "sat")
        statuses.add(row["status"])
    assert statuses == {"sat", "unsat"}, "both kinds are there"


@pytest.mark.slow
def test_they_are_counted_apart_and_shown(finished: tuple[Path, str]) -> None:
    out, text = finished
    summary = json.loads((out / "summary.json").read_text())
    light, _, heavy, _ = summary["pairs"]
    assert (light["name"], light["alike"], light["images"], light["finished"]) == (
        "light_own_eps5.1_pruned", "class", pairkit.IMAGES, True,
    )  # fmt: skip
    assert light["same"]["k"] > heavy["same"]["k"]
    rows = [row for row in documents(out, "pair") if (row["cell"], row["alike"]) == (light["name"], "class")]
    proved = {row["image"] for row in rows if row["status"] == "unsat"}
    assert light["same"]["k"] == len(proved)
    for shown in (text, html.render(summary), (out / "table.md").read_text()):
        assert "same decision, proved" in shown
    # Without them all else is as it was.
    lines = (out / "instances.main.jsonl").read_text().splitlines()
    alone = out.parent / "alone"
    alone.mkdir()
    kept = [line for line in lines if json.loads(line)["type"] != "pair"]
    (alone / "instances.main.jsonl").write_text("".join(f"{line}\n" for line in kept))
    assert summarise(alone)["cells"] == summary["cells"]
    assert not summarise(alone)["finished"]
    assert "same decision" not in table.markdown({**summary, "pairs": []})


@pytest.mark.slow
def test_the_same_command_asks_nothing_again(finished: tuple[Path, str]) -> None:
    out, _ = finished
    before = known_pairs(out, frozenset())
    count = sum(row.__class__.__name__ == "PairRow" for row in Log(out).rows())
    assert ask(out.parent / "pairs.yaml", out)[0] == 0
    assert sum(row.__class__.__name__ == "PairRow" for row in Log(out).rows()) == count
    assert set(before.values()) <= {Status.SAT, Status.UNSAT, Status.UNKNOWN, Status.TIMEOUT}
    assert not known_pairs(out, frozenset(Status))


@pytest.mark.slow
def test_pairs_alone_are_asked_where_nobody_else_is_named(finished: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = finished
    code, text = ask(out.parent / "pairs.yaml", tmp_path / "run", "--verifiers", "sparse-pair", "--images", "1")
    assert code == 0
    summary = summarise(tmp_path / "run")
    assert (summary["cells"], summary["finished"]) == ([], True)
    assert [pair["images"] for pair in summary["pairs"]] == [1] * 4
    assert not documents(tmp_path / "run", "verdict")
    # Cells that nobody verifies have no line that says that nothing of them is verified.
    assert "verified %" not in text


@pytest.mark.slow
def test_a_proof_of_a_pair_that_verdicts_refute_is_a_contradiction(finished: tuple[Path, str], tmp_path: Path) -> None:
    """Dense: proved. Alike: proved. Pruned: broken. One of them is wrong."""
    out, _ = finished
    rows = [json.loads(line) for line in (out / "instances.main.jsonl").read_text().splitlines()]
    name = "light_own_eps5.1_pruned"
    proved = {row["image"] for row in rows if row["type"] == "pair" and row["status"] == "unsat"
              and (row["cell"], row["alike"]) == (name, "class")}  # fmt: skip
    held = {row["image"] for row in rows if row["type"] == "verdict" and row["status"] == "unsat"
            and row["cell"] == "light_own_eps5.1_dense"}  # fmt: skip
    image = min(proved & held)

    def change(row: dict[str, Any]) -> dict[str, Any]:
        own = row["type"] == "verdict" and (row["cell"], row["image"]) == (name, image)
        return {**row, "status": "sat", "question": "another"} if own else row

    (tmp_path / "instances.main.jsonl").write_text("".join(json.dumps(change(row)) + "\n" for row in rows))
    (item,) = summarise(tmp_path)["contradictions"]
    assert (item["cell"], item["image"], item["sat_by"]) == (name, image, "sparse-bab")
    assert "on light_own_eps5.1_dense, with sparse-pair on the pair" in item["unsat_by"]
