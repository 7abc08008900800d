from __future__ import annotations

import subprocess
import sys

from prunecert.models import PRUNERS
from prunecert.models.pruners.contract import method_of
from prunecert.models.pruners.taxonomy import (
    FACETS,
    TAXONOMIES,
    Criterion,
    Schedule,
    Scope,
    Structure,
    Training,
    taxonomy_of,
)


def test_every_pruner_has_its_place_and_nobody_else() -> None:
    assert sorted(TAXONOMIES) == [name for name in PRUNERS if PRUNERS.get(name).__module__.startswith("prunecert.")]
    assert taxonomy_of("dense") is None


def test_what_pruners_declare_agrees() -> None:
    for name, taxonomy in TAXONOMIES.items():
        scratch = method_of(PRUNERS.get(name)).from_scratch
        assert (taxonomy.pre_training is Training.NONE) == scratch, name
        if method_of(PRUNERS.get(name)).learns_scores:
            assert taxonomy.criterion is Criterion.LEARNED, name


def test_the_seed_papers_row_is_the_benchmarks() -> None:
    row = TAXONOMIES["lwm-iterative"]
    assert [row.code(field) for field in FACETS] == ["AT", "AT", "IT", "US", "L", "LWM"]
    assert row.words()["schedule"] == "iterative"
    assert list(row.words()) == list(FACETS)


def test_words_name_one_facet_each() -> None:
    for kind in (Training, Schedule, Structure, Scope, Criterion):
        for facet in kind:
            assert kind(facet.value) is facet


def test_it_is_read_without_torch() -> None:
    code = "import sys; from prunecert.models.pruners.taxonomy import TAXONOMIES; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
