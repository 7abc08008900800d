from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prunecert.bench.report import figures, html, table
from prunecert.bench.results.summary import Rows, summary_of
from prunecert.errors import UserError
from tests.bench.rowkit import all_typed

STAGES = [
    {"verifier": "ibp", "key": "k-ibp", "everyone": True},
    {"verifier": "pgd", "key": "k-pgd", "everyone": True},
    {"verifier": "bab", "key": "k-bab", "everyone": False},
]
NASTY = "<script>alert(1)</script>"


def cell(name: str = "c", pruner: str = "dense", compression: float = 1.0, images: int = 6) -> dict[str, Any]:
    details = {"kind": "complete", "version": "1", "source": "", "settings": {}, "settings_hash": "0", "timeout": 9.0}
    return {
        "name": name,
        "network": "cnn-small",
        "objective": "ibp",
        "eps": "2/255",
        "pruner": pruner,
        "compression": compression,
        "seed": 0,
        "split": "test",
        "onnx_sha256": "a" * 64,
        "checkpoint_sha256": "b" * 64,
        "data_fingerprint": "f" * 64,
        "measured_sparsity": 1 - 1 / compression,
        "measured_compression": compression,
        "images": images,
        "indices": None,
        "image_key": f"i-{name}",
        "stages": [{**s, **details, "key": f"{s['key']}-{name}", "device": "cpu", "memory_mb": None} for s in STAGES],
        "unsupported": {},
        "note": "",
    }


def session(*cells: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "session",
        "schema_version": 1,
        "writer": "main",
        "started": "2026-01-01T00:00:00Z",
        "command": ["python", "-m", "bench.run", "--suite", NASTY],
        "suite": "tiny",
        "profile": "default",
        "suite_digest": "0",
        "description": f"a {NASTY}",
        "data": [{"split": "test", "fingerprint": "f", "official": True, "sample": False, "source": "CIFAR-10"}],
        "versions": {"torch": "2"},
        "machine": {"cpu": "x", "cores": 2, "memory_gib": 4.0, "system": "Linux"},
        "device": "cpu",
        "workers": 2,
        "threads": 1,
        "float32": "TF32 off",
        "unpublishable": [],
        "missing": [{"name": "later", "command": "python -m bench.train --cells later"}],
        "skipped": {},
        "cells": list(cells),
    }


def image(index: int, correct: bool = True, name: str = "c") -> dict[str, Any]:
    return {"type": "image", "key": f"i-{name}", "image": index, "correct": correct}


def verdict(
    verifier: str, index: int, status: str, seconds: float = 1.0, name: str = "c", **more: Any
) -> dict[str, Any]:
    return {
        "type": "verdict",
        "key": f"k-{verifier}-{name}",
        "question": f"{name}{index}",
        "cell": name,
        "image": index,
        "verifier": verifier,
        "version": "1",
        "status": status,
        "times": {"wall_s": seconds + 0.5, "load_s": 0.5, "start_s": 100.0},
        **more,
    }


def summarise(*rows: dict[str, Any]) -> dict[str, Any]:
    found = Rows()
    found.add(all_typed(rows))
    return summary_of(found)


def everything() -> list[dict[str, Any]]:
    """Image 0 wrong; 1 proved by ibp; 2 proved by bab; 3 broken by pgd; 4 undecided after an error; 5 timed out."""
    rows = [image(0, correct=False), *(image(i) for i in range(1, 6))]
    rows += [verdict("ibp", i, "unsat" if i == 1 else "unknown", 0.001) for i in range(1, 6)]
    rows += [verdict("pgd", i, "sat" if i == 3 else "unknown", 0.01) for i in range(1, 6)]
    rows += [verdict("bab", 2, "unsat", 4.0), verdict("bab", 4, "error"), verdict("bab", 5, "timeout", 9.0)]
    return rows


def test_counts_are_those_of_the_definitions() -> None:
    summary = summarise(session(cell()), *everything())
    (found,) = summary["cells"]
    assert (found["clean"]["k"], found["clean"]["n"]) == (5, 6)
    assert found["verified"]["k"] == 2
    assert found["attacked"]["k"] == 4
    assert found["verified"]["low"] == pytest.approx(0.0968, abs=1e-4)
    assert found["undecided"] == {"total": 2, "unknown": 0, "timeout": 1, "memout": 0, "error": 1, "unsupported": 0}
    assert found["decided_by"] == {
        "ibp": {"unsat": 1, "sat": 0},
        "pgd": {"unsat": 0, "sat": 1},
        "bab": {"unsat": 1, "sat": 0},
    }
    assert found["finished"]
    assert summary["publishable"]
    # Up to the deciding verifier, without loading: 0.001; 4.011; 0.011; 1.011; 9.011.
    assert found["time"]["median_s"] == pytest.approx(1.011)
    assert found["time"]["total_s"] == pytest.approx(0.001 + 4.011 + 0.011 + 1.011 + 9.011)


def test_failures_are_seen_in_the_table() -> None:
    summary = summarise(session(cell()), *everything(), verdict("ibp", 3, "memout"))
    (row,) = table.rows(summary)
    text = dict(zip((heading for heading, _ in table.COLUMNS), row, strict=True))
    assert text["undecided"] == "2 (timeout 1, error 1); FAILED: ibp memout 1, bab error 1"
    assert text["verified by"] == "ibp 1, bab 1"
    assert text["broken by"] == "pgd 1"
    assert text["verified %"] == "33.3 (9.7–70.0)"


def test_what_is_still_to_come_is_pending_not_undecided() -> None:
    rows = [row for row in everything() if not (row["type"] == "verdict" and row["image"] == 5 and "bab" in row["key"])]
    (found,) = summarise(session(cell(images=9)), *rows)["cells"]
    assert found["pending"] == 1
    assert not found["finished"]
    assert found["undecided"]["timeout"] == 0
    assert "4 to do" in table.undecided(found)
    cross_check_missing = [row for row in everything() if not (row.get("key") == "k-pgd-c" and row["image"] == 1)]
    assert summarise(session(cell()), *cross_check_missing)["cells"][0]["pending"] == 1


def test_a_proved_image_that_is_broken_counts_as_broken_and_is_named() -> None:
    summary = summarise(session(cell()), *everything(), verdict("pgd", 1, "sat"))
    (found,) = summary["cells"]
    assert (found["verified"]["k"], found["attacked"]["k"]) == (1, 3)
    assert summary["contradictions"] == [
        {"cell": "c", "image": 1, "unsat_by": "ibp", "sat_by": "pgd", "question": "c1"}
    ]
    assert not summary["publishable"]


def test_rows_of_other_settings_and_images_beyond_the_set_do_not_count() -> None:
    rows = [*everything(), image(6), verdict("ibp", 6, "unsat"), {**verdict("bab", 4, "unsat"), "key": "k-old"}]
    assert summarise(session(cell()), *rows)["cells"] == summarise(session(cell()), *everything())["cells"]


def test_a_run_that_was_killed_before_it_began_is_refused() -> None:
    with pytest.raises(UserError, match="killed before it began"):
        summarise()


def test_a_later_answer_replaces_an_earlier_one() -> None:
    (found,) = summarise(session(cell()), *everything(), verdict("bab", 4, "unsat"))["cells"]
    assert found["verified"]["k"] == 3
    assert found["by_verifier"]["bab"]["error"] == 0


def test_a_verifier_that_always_fails_is_broken() -> None:
    rows = [image(0), *(verdict("ibp", 0, "error"), verdict("pgd", 0, "unknown"), verdict("bab", 0, "error"))]
    assert summarise(session(cell(images=1)), *rows)["broken_verifiers"] == ["bab", "ibp"]
    assert summarise(session(cell()), *everything())["broken_verifiers"] == []


def pruned() -> dict[str, Any]:
    cells = [cell(), cell("d", "lwm", 10.0), cell("e", NASTY, 10.0), cell("empty", "lwm", 100.0, images=5)]
    rows = [*everything()]
    for name in ("d", "e"):
        rows += [image(i, name=name) for i in range(6)]
        rows += [verdict(v, i, "unsat", name=name) for v in ("ibp", "pgd") for i in range(6)]
    return summarise(session(*cells), *rows)


def test_the_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    page = html.render(pruned())
    assert NASTY not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!\#)[^"']+""", page)
    assert not re.findall(r"url\(\s*['\"]?(?!#)[a-z]", page)
    assert "@import" not in page
    assert page.count("<svg ") == 2
    assert "currentColor" in page
    assert "#010203" not in page
    assert "python -m bench.train --cells later" in page
    assert "NOT PUBLISHABLE" not in page


@pytest.mark.slow
def test_figures_are_drawn_and_repeatable(tmp_path: Path) -> None:
    summary = pruned()
    paths = figures.save(summary, tmp_path)
    assert {path.name for path in paths} == {"verified-accuracy.png", "verified-accuracy.svg", "time.png", "time.svg"}
    assert (tmp_path / "time.png").read_bytes().startswith(b"\x89PNG")
    assert figures.inline_svg(summary, "time") == figures.inline_svg(summary, "time")
    nothing = summarise(session(cell()))
    assert figures.save(nothing, tmp_path / "none") == []
    assert figures.inline_svg(nothing, "time") is None


@pytest.mark.parametrize("width", [100, 250])
def test_the_table_is_shown_whole_at_any_width(width: int) -> None:
    stream = io.StringIO()
    table.show(pruned(), Console(file=stream, width=width, force_terminal=True, color_system=None))
    text = stream.getvalue()
    assert "33.3 (9.7–70.0)" in text.replace("\n", "") or "33.3" in text
    assert "…" not in text
    assert "no checkpoint yet: later" in text


def test_markdown_has_a_line_a_cell() -> None:
    text = table.markdown(pruned(), ("pruner", "×", "verified %"))
    lines = text.splitlines()
    assert lines[0] == "| pruner | × | verified % |"
    assert lines[1] == "|---|---:|---:|"
    assert lines[2] == "| dense | 1 | 33.3 (9.7–70.0) |"
    assert len(lines[2:6]) == 4


def test_seconds_keep_three_digits() -> None:
    assert [table.seconds(x) for x in (None, 0.00012, 0.0999, 1.23456, 123.4)] == [
        "–",
        "0.0001",
        "0.0999",
        "1.23",
        "123",
    ]


def test_a_network_that_no_verifier_takes_has_a_line() -> None:
    summary = summarise(session({**cell(), "stages": [], "unsupported": {"ibp": "it has a Loop"}}), *everything())
    (row,) = table.rows(summary)
    assert row[-1] == "–"
    assert summary["cells"][0]["undecided"]["total"] == 5
    assert "it has a Loop" in table.markdown(summary)
