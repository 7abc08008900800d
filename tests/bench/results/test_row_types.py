"""Rows and files of all versions read the same as ever, and what is none is refused by one sentence."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prunecert.bench import baseline
from prunecert.bench.gating import baseline_file
from prunecert.bench.leaderboard.entry import load_entry, recount
from prunecert.bench.results.baseline_types import Baseline
from prunecert.bench.results.decode import plain
from prunecert.bench.results.merge import merge
from prunecert.bench.results.row_types import CertificateRow, PairRow, PropertyRow, VerdictRow
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.results.store import Log, Writer, verdict_fields
from prunecert.bench.results.summary import summarise
from prunecert.bench.results.summary_types import read_summary
from prunecert.bench.running.recording import read_done
from prunecert.errors import UserError
from prunecert.verifiers.base import Status, Times, Verdict
from prunecert.verifiers.certificate import certificate
from tests.bench.rowkit import all_typed, complete, documents, typed
from tests.fuzz.rows import certificate_rows, pair_rows, property_rows, run_rows, timing_rows

RESULTS = Path(__file__).parents[3] / "results"
OLD = Path(__file__).parent / "old_run"
ENTRIES = sorted((RESULTS / "leaderboard").glob("*.json"))


def test_every_published_summary_has_the_same_content() -> None:
    paths = sorted((RESULTS / "zoo").glob("*.json"))
    assert paths
    for path in paths:
        assert plain(read_summary(path)) == json.loads(path.read_text())


@pytest.mark.slow
def test_every_published_baseline_has_the_same_content() -> None:
    paths = sorted((RESULTS / "baselines").glob("*.json"))
    assert paths
    for path in paths:
        data = json.loads(path.read_text())
        assert plain(msgspec.convert(data, Baseline)) == data
        again = baseline_file.to_json(baseline_file.read(path))
        assert again == data


@pytest.mark.parametrize("path", ENTRIES[:: max(1, len(ENTRIES) // 12)], ids=lambda path: path.stem)
def test_published_entries_count_the_same(path: Path) -> None:
    entry = load_entry(path)
    assert recount(entry) == {key: entry["result"][key] for key in (*recount(entry),)}


def test_a_log_of_before_compaction_reads_the_same() -> None:
    # Its cells have neither masked_sha256 nor compaction. `documents` compares every field with what is in the file.
    rows = documents(OLD)
    assert {row["type"] for row in rows} == {"session", "image", "verdict", "end"}
    assert "masked_sha256" not in rows[0]["cells"][0]
    answers, notes = read_done(OLD, frozenset())
    assert (len(answers.correct), notes) == (4, [])
    was, now = json.loads((OLD / "summary.json").read_text()), summarise(OLD)
    (old,), (new,) = was.pop("cells"), now.pop("cells")
    assert {key: now[key] for key in was} == was
    assert {key: new[key] for key in old} == old
    assert new["masked_sha256"] == old["onnx_sha256"]
    read_summary(OLD / "summary.json")


@pytest.mark.parametrize("make", [run_rows, timing_rows, certificate_rows, pair_rows, property_rows])
def test_what_is_written_is_read(tmp_path: Path, make: Any) -> None:
    rows = make()
    with Writer(tmp_path) as writer:
        writer.append(*all_typed(rows))
    assert documents(tmp_path) == rows


def test_every_field_of_a_verdict_has_a_place() -> None:
    issued = certificate(3, 90, n0=10, n=100, alpha=0.01, sigma=0.5)
    verdict = Verdict(
        Status.ERROR, "died", None, (0.5,), Times(1, 2, 3, 4, 5), "bab", 1, 2, 3, 4.5, 6, "cuda:0 (x)", "ibp", "1"
    )
    full = {**verdict_fields(verdict), "witness_check": {"ok": True, "outputs": [1.0, "inf"]}, "log_tail": "x"}
    for kind in (VerdictRow, CertificateRow, PairRow, PropertyRow):
        extra = {"certificate": msgspec.to_builtins(issued.to_json())} if kind is CertificateRow else {}
        row = {"type": kind.__struct_config__.tag, **full, **extra}
        assert complete(row).items() <= complete({**plain(typed(row))}).items()
    # What a verifier says and JSON has no word for is left out.
    odd = verdict_fields(Verdict(Status.UNKNOWN, times=Times(wall_s=math.nan), peak_memory_mb=math.inf))
    assert not odd.keys() & {"times", "peak_memory_mb"}


def test_a_row_that_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.append(typed({"type": "session"}))
        for bad in ({"times": {"wall_s": math.nan}}, {"unstable": -1}, {"timeout": math.inf}):
            row = typed({"type": "verdict"})
            for key, value in bad.items():
                setattr(row, key, value)
            with pytest.raises(ValueError, match="could not be read back"):
                writer.append(row)
    assert len(documents(tmp_path)) == 1


def test_fields_of_a_newer_program_are_left_out_of_account_and_kept_by_a_merge(tmp_path: Path) -> None:
    rows = run_rows()
    newer = [{**row, "colour": {"deep": [1]}} for row in rows]
    (tmp_path / "a").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in newer)
    (tmp_path / "a" / "instances.main.jsonl").write_text(lines)
    assert [plain(row) for row in Log(tmp_path / "a").rows()] == rows
    merge([tmp_path / "a"], tmp_path / "b")
    merged = (tmp_path / "b" / "instances.part1-main.jsonl").read_text().splitlines()
    assert all(json.loads(line)["colour"] == {"deep": [1]} for line in merged)
    assert [json.loads(line).get("writer", "part1-main") for line in merged] == ["part1-main"] * len(rows)


def log(folder: Path, **changed: Any) -> Path:
    """Writes a log whose second row has something changed."""
    rows = run_rows()
    rows[1] |= changed
    folder.mkdir(exist_ok=True)
    (folder / "instances.main.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"correct": "yes"}, "line 2: field correct: it must be of type bool, not str"),
        ({"image": {"x": 1}}, "line 2: field image: it must be of type int, not object"),
        ({"image": 2**63}, "line 2: field image: "),
        ({"image": 1.5}, "line 2: field image: "),
        ({"image": True}, "line 2: field image: it must be of type int, not bool"),
        ({"label": math.nan}, "line 2: this is no JSON"),
        ({"label": math.inf}, "line 2: this is no JSON"),
        ({"type": "verdikt"}, "line 2: its type is none that this program knows"),
        ({"type": 7}, "line 2: "),
        ({"type": "verdict"}, "line 2: object missing required field"),
        ({"type": "session"}, "no valid schema_version"),
    ],
)
def test_one_sentence_names_file_line_and_field(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    folder = log(tmp_path / "run", **changed)
    out = tmp_path / "b.json"
    words = ["--run", str(folder), "--out", str(out), "--reason", "x", "--allow-unpublishable", "--allow-errors"]
    readers: list[Callable[[], object]] = [
        lambda: baseline.main(words),
        lambda: merge([folder], tmp_path / "m"),
        lambda: summarise(folder),
    ]
    for reader in readers:
        with pytest.raises(UserError) as caught:
            reader()
        assert message in str(caught.value)
        assert "instances.main.jsonl" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not out.exists()
    assert not (tmp_path / "m").exists()


def session(folder: Path, **changed: Any) -> Path:
    """Writes a log whose session has something changed; None takes the field away."""
    rows = run_rows()
    rows[0] = {key: value for key, value in {**rows[0], **changed}.items() if value is not None}
    folder.mkdir(exist_ok=True)
    (folder / "instances.main.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def cells(**changed: Any) -> list[dict[str, Any]]:
    (first, *rest) = run_rows()[0]["cells"]
    return [{**first, **changed}, *rest]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threads": None}, "required field `threads`"),
        ({"machine": "big"}, "field machine: it must be of type object"),
        ({"cells": cells(images=2**63)}, r"field cells\[0\]\.images"),
        ({"cells": cells(images=10**400)}, r"field cells\[0\]\.images"),
        ({"cells": cells(name=7)}, r"field cells\[0\]\.name: it must be of type str"),
        ({"cells": cells(name="\x1b[2J")}, r"field cells\[0\]\.name"),
        ({"cells": cells(eps="1e-99999999")}, r"field cells\[0\]\.eps"),
        ({"cells": cells(eps="1/0")}, r"field cells\[0\]\.eps"),
        ({"cells": cells(card=json.loads("[" * 400 + "]" * 400))}, "deep in each other"),
        ({"cells": cells(card={"a": json.loads("[" * 400 + "]" * 400)})}, "deep in each other"),
        ({"versions": {"torch": 2}}, "field versions"),
    ],
)
def test_sessions_are_held_to_types_and_ranges(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        summarise(session(tmp_path / "run", **changed))


@pytest.mark.timeout(60)
def test_millions_of_images_take_no_time(tmp_path: Path) -> None:
    summary = summarise(session(tmp_path / "run", cells=cells(images=10_000_000)))
    assert (summary["cells"][0]["images"], summary["cells"][0]["finished"]) == (3, False)


@pytest.fixture
def usual_depth() -> Iterator[None]:
    """Python's limit of recursion as it is by default: Hypothesis raises it, and other tests' modules with it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", ["[" * 5000 + "]" * 5000, '{"a":' * 5000 + "1" + "}" * 5000, "[" * 100_000])
def test_nesting_is_refused(tmp_path: Path, usual_depth: None, text: str) -> None:
    path = log(tmp_path / "run") / "instances.main.jsonl"
    lines = path.read_text().splitlines()
    for line in (text, lines[1][:-1] + f',"more":{text}}}'):
        path.write_text("\n".join([*lines[:3], line, *lines[3:], ""]))
        with pytest.raises(UserError, match="line 4: "):
            summarise(tmp_path / "run")


@pytest.mark.timeout(60)
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    run = log(tmp_path / "run")
    strange = run / "instances.x.jsonl"
    makers: tuple[Callable[[], object], ...] = (
        strange.mkdir,
        lambda: os.mkfifo(strange),
        lambda: strange.symlink_to("/dev/zero"),
    )
    for make, take_away in zip(makers, (strange.rmdir, strange.unlink, strange.unlink), strict=True):
        make()
        with pytest.raises(UserError, match=r"instances\.x\.jsonl is refused: it is called like a result file"):
            summarise(run)
        with pytest.raises(UserError, match=r"instances\.x\.jsonl is refused"):
            Log(run).sessions()
        take_away()
    strange.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="can't be read"):
        summarise(run)


def test_what_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = log(tmp_path / "run")

    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("prunecert.bench.results.lines.open_regular", refuse)
    with pytest.raises(UserError, match=r"instances\.main\.jsonl can't be read \(Permission denied\)"):
        summarise(run)


def test_a_folder_that_may_not_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = log(tmp_path / "run")

    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    for reader in (summarise, lambda folder: merge([folder], tmp_path / "m")):
        with pytest.raises(UserError, match=r"run can't be read \(Permission denied\)"):
            reader(run)


def test_only_the_runs_own_counterexamples_are_read(tmp_path: Path) -> None:
    run = log(tmp_path / "run")
    (tmp_path / "secret.npy").write_bytes(b"x")
    for name in ("../secret.npy", str(tmp_path / "secret.npy"), "witnesses/../../secret.npy", "", "witnesses/.x.npy"):
        with pytest.raises(UserError, match=r"only files in witnesses/ are read"):
            Log(run).witness(typed({"type": "verdict", "status": "sat", "witness": name}))


def test_results_of_bench_verify_are_no_run(tmp_path: Path) -> None:
    (tmp_path / "instances.main.jsonl").write_text("".join(json.dumps(row) + "\n" for row in property_rows()))
    with pytest.raises(UserError, match=r"these are results of 'prunecert verify'; give a run"):
        summarise(tmp_path)
    with pytest.raises(UserError, match="prunecert verify"):
        merge([tmp_path], tmp_path / "m")
    kept = Log(tmp_path).properties()
    assert [row["id"] for row in kept] == ["0", "1"]


def test_commands_end_with_two(tmp_path: Path) -> None:
    run = log(tmp_path / "run", correct="yes")
    command = [sys.executable, "-m", "bench.merge", str(run), "--out", str(tmp_path / "m")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert "Traceback" not in process.stderr


def test_a_schema_comes_with_the_types() -> None:
    schema = msgspec.json.schema(SessionRow)
    assert "SessionCell" in schema["$defs"]
