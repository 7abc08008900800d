"""The board of a run, of its summary and of entries; what isn't there is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prunecert.bench.impact.questions import ImpactQuestion, parts_of
from prunecert.bench.results.store import Writer
from prunecert.bench.results.summary import summarise
from prunecert.bench.retention import main
from prunecert.errors import UserError
from prunecert.models.checkpoint import ZOO
from tests.bench import summarykit
from tests.bench.rowkit import all_typed

ROOT = Path(__file__).parents[3]


def test_the_board_is_printed_of_entries(tmp_path: Path, entries: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("dense_x1", "lwm_x100"):
        for file in ZOO.glob(f"cnn-small_ibp_eps2_{name}_s0.*"):
            shutil.copy(file, tmp_path)
    main([str(entries), "--about", "networks", "--cells", "*lwm*,*hydra*", "--checkpoints", str(tmp_path)])
    text = capsys.readouterr().out
    assert "| cnn-small, ibp, 2/255 | 0 | 1,000 | dense | 1 | 55.4 | [43.2, 43.3] | 40.2–46.3 | – | 1 |" in text
    assert "| dense | 1 | 214,760 | 926,696 | 100.0 |" in text
    assert "| lwm | 100 | 2,148 | 90,975 | 9.8 |" in text
    assert "| hydra | 100 | – | – | – |" in text
    assert "is here of cnn-small_ibp_eps2_hydra_x100_s0" in text
    main([str(entries), "--about", "networks", "--compression", "100", "--cells", "*hydra*"])
    printed = capsys.readouterr().out
    assert "lwm" not in printed
    assert "| hydra | 100 | 2,148 |" in printed
    assert "| dense | 1 | 214,760 |" in printed


def test_the_board_is_printed_of_a_run_and_of_its_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Writer(tmp_path) as writer:
        cells = summarykit.cell(images=6), summarykit.cell("later", "lwm", 10.0)
        writer.append(*all_typed([summarykit.session(*cells), *summarykit.everything()]))
    main([str(tmp_path), "--about", "networks"])
    text = capsys.readouterr().out
    assert "| cnn-small, ibp, 2/255 | 0 | 6 | dense | 1 |" in text
    assert "Not finished, and left out: later." in text
    (tmp_path / "summary.json").write_text(json.dumps(summarise(tmp_path)))
    for source in (tmp_path, tmp_path / "summary.json"):
        main([str(source), "--about", "networks"])
        assert capsys.readouterr().out == text
    with pytest.raises(UserError, match="holds no finished network"):
        main([str(tmp_path), "--about", "networks", "--compression", "3"])


def test_the_board_on_a_terminal_has_tables_for_each_network() -> None:
    compressions = frozenset([1.0, 10.0])
    question = ImpactQuestion(ROOT / "results", "networks", compressions, "resnet-2b*_s0", 0.01, ZOO, None)
    accuracies, costs = parts_of(question, whole=False)
    assert accuracies.title == "resnet-2b, mtl-ibp, 2/255, seed 0, 1,000 images"
    assert costs.title == f"{accuracies.title}: costs"
    assert [row[:3] for row in costs.table.rows] == [["dense", "1", "1,183,072"], ["lwm", "10", "118,307"]]


def test_a_suite_chooses_networks_and_methods(capsys: pytest.CaptureFixture[str]) -> None:
    results = ROOT / "results"
    main(
        [
            str(results),
            "--suite",
            "cifar10-4nets",
            "--about",
            "networks",
            "--cells",
            "cnn-small_ibp*",
            "--compression",
            "10",
        ]
    )
    printed = capsys.readouterr().out
    assert "| hydra | 10 |" in printed
    assert "harp" not in printed
    main([str(results), "--suite", "cifar10-4nets", "--about", "methods", "--cells", "cnn-small_ibp*_s0"])
    printed = capsys.readouterr().out
    assert "lwm-iterative" in printed
    assert "harp" not in printed
    with pytest.raises(UserError, match="no checkpoint of harp"):
        main(["--suite", "cifar10-4nets", "--about", "rates", "--cells", "cnn-small_ibp*_s0"])
    with pytest.raises(UserError, match="--proved goes without --suite"):
        main(["--proved", str(results), "--suite", "cifar10-4nets"])
