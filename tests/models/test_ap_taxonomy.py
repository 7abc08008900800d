"""The benchmark's taxonomy is written as it stands there, and read back; our methods have their place in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunecert.errors import UserError
from prunecert.models import PRUNERS
from prunecert.models.ap_taxonomy import ApMethod, our_methods, read_taxonomy, taxonomy_json

TRAINED = "Adversarial Training (AT) PGD"
METHODS = [
    ApMethod("Ours_A", "https://a", "A", "Natural Training (NT)", TRAINED, "IT", "Unstructured (US)", "L", "LWM"),
    ApMethod("Ours_B", "https://b", "B", TRAINED, TRAINED, "1S", "Structured (S) filters", "G", "LIS"),
    ApMethod("Ours_D", "https://d", "D", "", TRAINED, "", "Unstructured (US)", "Global Pruning (G)", "BCS"),
]


def test_the_taxonomy_is_written_as_the_benchmark_has_it_and_read_back(tmp_path: Path) -> None:
    items = taxonomy_json(METHODS)
    assert list(items[0]) == [
        "link_to_paper",
        "ap_key",
        "Type of Pipeline:",
        "A: Pretraining ",
        "A: Finetuning",
        "A: OneShot (1S) vs Iterative (IT)",
        "Pruning structure",
        "Pruning locality",
        "Pruning criterion",
    ]
    assert set(items[2]) & {"D: Training step "}
    (tmp_path / "taxonomy.json").write_text(json.dumps(items))
    assert read_taxonomy(tmp_path / "taxonomy.json") == METHODS


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "cannot be read"),
        ("{}", "must be a list"),
        ("[3]", "method 1 is refused"),
        ('[{"Type of Pipeline:": "C"}]', "must be one of"),
        ('[{"Type of Pipeline:": "D-Methods Pruning During Training", "ap_key": "x"}]', "link_to_paper"),
    ],
)
def test_what_is_no_taxonomy_is_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=match):
        read_taxonomy(tmp_path / "t.json")


def test_every_pruner_of_ours_is_a_method_of_its_pipelines(tmp_path: Path) -> None:
    methods = our_methods([*PRUNERS, "of-a-stranger"])
    assert [method.key for method in methods] == list(PRUNERS)
    (tmp_path / "t.json").write_text(json.dumps(taxonomy_json(methods)))
    assert read_taxonomy(tmp_path / "t.json") == methods
    by_key = {method.key: method for method in methods}
    # The seed paper's row is the benchmark's own.
    seed = by_key["lwm-iterative"]
    assert (seed.pipeline, seed.schedule, seed.locality, seed.criterion) == ("A", "IT", "Local (L)", "LWM")
    assert by_key["ard"].finetuning == "Adversarial Training (AT), KD"
    assert by_key["fre"].structure == "Structured (S) filters"
