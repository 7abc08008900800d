from __future__ import annotations

import json
import shlex
from pathlib import Path

import yaml

from prunecert.bench.leaderboard.commands import card_text, export_again, measure_again, without_places
from prunecert.bench.leaderboard.content import is_own_command
from prunecert.bench.planning.card import read_card
from prunecert.bench.run_options import run_parser
from tests.bench import boards

RESULTS = Path(__file__).parents[3] / "results" / "leaderboard"


def test_a_command_keeps_what_was_measured_and_loses_where_and_by_whom() -> None:
    words = (
        "python -m bench.run --suite s --reuse a b --images 9 --out=x --slurm-partition p --submit --by A B --cells c"
    )
    assert shlex.join(without_places(words.split())) == "python -m bench.run --suite s --images 9 --cells c"


def test_options_that_name_places_are_options_of_the_command() -> None:
    """Every option that takes a path is left out, or is the card; no new one is forgotten."""
    paths = {
        option
        for action in run_parser()._actions
        if action.type is Path
        for option in action.option_strings
        if without_places([option, "x"])
    }
    assert paths == {"--card"}


def test_a_shipped_entry_is_measured_and_exported_by_its_cells_name() -> None:
    entry = json.loads((RESULTS / "cnn-large_mtl-ibp_eps2_lwm_x10_s0.215f35ae.json").read_text())
    name = entry["cell"]["name"]
    assert measure_again(entry).startswith(f"prunecert run --suite cifar10-4nets --profile board --cells {name}")
    assert export_again(entry) == f"prunecert export --suite cifar10-4nets --cells {name}"
    for command in (measure_again(entry), export_again(entry)):
        assert command is not None
        assert is_own_command(shlex.split(command))


def test_somebody_elses_entry_is_measured_by_its_card(tmp_path: Path) -> None:
    entry = boards.make(title='Mine: "better" #1')
    entry["method"]["authors"] = "Ada Lovelace and Alan Turing"
    assert export_again(entry) is None
    assert measure_again(entry) == "prunecert run --suite made-up --card card.yaml"
    text = card_text(entry)
    assert yaml.safe_load(text)["eps"] == "2/255"
    (tmp_path / "card.yaml").write_text(text)
    (tmp_path / f"{entry['cell']['name']}.onnx").write_bytes(b"")
    card = read_card(tmp_path / "card.yaml")
    assert (card.title, card.authors, card.seed) == (entry["method"]["title"], entry["method"]["authors"], 0)
