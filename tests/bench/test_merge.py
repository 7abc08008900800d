from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from prunecert.bench import merge
from prunecert.bench.results.merge import merge as merge_runs
from prunecert.bench.results.summary import summarise
from prunecert.errors import UserError
from tests.bench.conftest import Zoo
from tests.bench.rowkit import documents
from tests.bench.test_run import summary, verdicts

Run = Callable[..., int]


@pytest.fixture
def parts(run: Run, tmp_path: Path) -> list[Path]:
    folders = [tmp_path / f"part{number}" for number in (1, 2)]
    for number, folder in enumerate(folders, start=1):
        run(folder, "--images", "8", "--shard", f"{number}/2")
    return folders


@pytest.mark.slow
def test_parts_become_the_whole(run: Run, parts: list[Path], tmp_path: Path) -> None:
    assert not summarise(parts[0])["finished"]
    assert not (parts[0] / "summary.json").exists()
    with (parts[1] / "instances.shard-2-of-2.jsonl").open("a") as stream:
        stream.write('{"type":"verd')
    assert merge.main([str(parts[0]), str(parts[1]), "--out", str(tmp_path / "joined")]) == 0
    run(tmp_path / "whole", "--images", "8")
    joined, whole = summary(tmp_path / "joined"), summary(tmp_path / "whole")
    assert joined["finished"]
    assert joined["sessions"] == 2
    assert verdicts(tmp_path / "joined") == verdicts(tmp_path / "whole")
    for one, other in zip(joined["cells"], whole["cells"], strict=True):
        for key in ("clean", "verified", "attacked", "undecided", "decided_by"):
            assert one[key] == other[key]
    # Parts of one name can be joined as well: they are told apart by the folder that they came from.
    again = tmp_path / "again"
    merge_runs([tmp_path / "joined", tmp_path / "whole"], again)
    assert len({row["writer"] for row in documents(again, "session")}) == 3


@pytest.mark.slow
def test_parts_that_do_not_fit_are_refused(run: Run, parts: list[Path], zoo: Zoo, tmp_path: Path) -> None:
    out = tmp_path / "joined"
    run(tmp_path / "half", "--profile", "half", "--images", "1")
    with pytest.raises(UserError, match=r"half cannot be joined with .*part1: their profile differ"):
        merge_runs([parts[0], tmp_path / "half"], out)
    with pytest.raises(UserError, match="given twice"):
        merge_runs([parts[0], parts[0]], out)
    with pytest.raises(UserError, match="holds a run already"):
        merge_runs(parts, parts[0])
    with pytest.raises(UserError, match="no such directory"):
        merge_runs([tmp_path / "nowhere"], out)
    log = parts[1] / "instances.shard-2-of-2.jsonl"
    session, rest = log.read_text().split("\n", 1)
    changed = json.loads(session)
    changed["data"][0]["fingerprint"] = "0" * 64
    log.write_text(json.dumps(changed) + "\n" + rest)
    with pytest.raises(UserError, match="run on different data"):
        merge_runs(parts, out)
    assert not out.exists()
