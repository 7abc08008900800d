"""What pruning takes from whom, from the entries that ship and from a run; bad input is refused in a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prunecert.bench.results.store import Writer
from prunecert.bench.retention import main
from prunecert.errors import UserError
from prunecert.models.checkpoint import ZOO
from tests.bench import summarykit
from tests.bench.rowkit import all_typed

ROOT = Path(__file__).parents[3]


def test_methods_are_compared_on_the_entries_images(
    tmp_path: Path, entries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in ZOO.glob("cnn-small_ibp_eps2_dense_x1_s0.*"):
        shutil.copy(file, tmp_path)
    main([str(entries), "--about", "methods", "--checkpoints", str(tmp_path)])
    text = capsys.readouterr().out
    assert "**cnn-small, ibp, 2/255, 1000 images**" in text
    assert "| dense | 1 | 1 | 55.4 | 43.2 | 43.3 |" in text
    # Counted in the export of the checkpoint, whose hash is the entry's.
    assert "| 926,696 | 100.0 |" in text
    assert "| lwm | 100 | – | – | – |" in text


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ("classes", "| class (images) | clean | attack | verified | change (95 %) | p | excess p |"),
        ("images", "| hydra | 100 | 1 |"),
        ("potential", "largest compression that loses at most 2 points"),
    ],
)
def test_each_subject_has_its_tables(about: str, text: str, entries: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(entries), "--about", about, "--allowance", "2", "--cells", "*hydra*"])
    printed = capsys.readouterr().out
    assert text in printed
    assert "lwm" not in printed


def test_a_run_is_read_like_entries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Writer(tmp_path) as writer:
        writer.append(*all_typed([summarykit.session(summarykit.cell(images=6)), *summarykit.everything()]))
    main([str(tmp_path), "--about", "methods"])
    assert "6 images" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(tmp_path: Path, entries: Path) -> None:
    about = ["--about", "images"]
    with pytest.raises(UserError, match="does not exist"):
        main([str(tmp_path / "none"), *about])
    with pytest.raises(UserError, match="neither a run nor a leaderboard entry"):
        main([str(tmp_path), *about])
    with pytest.raises(UserError, match="image by image"):
        main([str(ROOT / "results" / "zoo" / "cifar10-certified-night-cnn5.json"), *about])
    with pytest.raises(UserError, match="no finished network"):
        main([str(entries), *about, "--compression", "3"])
    with pytest.raises(UserError, match="Did you mean"):
        main([str(entries), *about, "--cells", "cnn-small_ipb_eps2_hydra_x100_s0"])
    with pytest.raises(UserError, match="in points of accuracy"):
        main([str(entries), *about, "--allowance", "-1"])
    with pytest.raises(UserError, match="holds no checkpoint"):
        main([str(entries), "--about", "gradients"])
    (dense,) = entries.glob("*dense*")
    shutil.copy(dense, tmp_path)
    with pytest.raises(UserError, match="no pruned network with a dense control"):
        main([str(tmp_path), *about])


def test_an_entry_that_lacks_something_is_refused(tmp_path: Path, entries: Path) -> None:
    (dense,) = entries.glob("*dense*")
    entry = json.loads(dense.read_text())
    del entry["images"]["label"]
    (tmp_path / "broken.json").write_text(json.dumps(entry))
    with pytest.raises(UserError, match=r"images\.label"):
        main([str(tmp_path), "--about", "images"])
