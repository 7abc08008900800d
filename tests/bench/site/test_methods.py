from __future__ import annotations

import pytest

from prunecert.bench.site.methods import SHADES, UNSTATED, Shade, choices, facets_of, grids, kinds
from prunecert.bench.site.view import families, make_rows
from tests.bench import boards


@pytest.fixture(scope="module")
def rows() -> list[object]:
    entries = [boards.make("dense", 1.0, seed=seed) for seed in (0, 1)]
    entries += [boards.make("lwm", ratio, seed=seed) for ratio in (10.0, 100.0) for seed in (0, 1)]
    return [*make_rows([*entries, boards.make("hydra", 10.0), boards.make("of-a-stranger", 2.0, by="stranger")])]


def test_methods_have_their_place_and_strangers_say_nothing(rows: list) -> None:  # type: ignore[type-arg]
    assert [(kind.name, kind.entries) for kind in kinds(rows)] == [("hydra", 1), ("lwm", 4), ("of-a-stranger", 1)]
    assert facets_of("hydra")["criterion"] == "learned magnitude"
    assert set(facets_of("of-a-stranger").values()) == {UNSTATED}
    # A filter that has nothing to choose is left out.
    offered = {field: values for field, _, values in choices(rows)}
    assert offered["criterion"] == ["learned magnitude", "magnitude", UNSTATED]
    ours = [row for row in rows if row.cell["pruner"] != "of-a-stranger"]
    assert [field for field, _, _ in choices(ours)] == ["criterion"]


def test_a_grid_holds_the_mean_of_seeds_and_one_networks_interval(rows: list) -> None:  # type: ignore[type-arg]
    (grid,) = grids(families(rows))
    assert grid.ratios == (10.0, 100.0)
    assert set(grid.rows) == {"lwm", "hydra"}
    assert grid.images == (boards.IMAGES,)
    kept = [row.kept["verified"] for row in rows if row.cell["pruner"] == "lwm" and row.compression == 100]
    shade = grid.rows["lwm"][100.0]
    assert shade.kept == pytest.approx(sum(one.value for one in kept) / 2)
    assert (shade.low, shade.high, shade.networks) == (min(k.value for k in kept), max(k.value for k in kept), 2)
    (one,) = (row for row in rows if row.cell["pruner"] == "hydra")
    single = grid.rows["hydra"][10.0]
    assert (single.low, single.high, single.name) == (one.kept["verified"].low, one.kept["verified"].high, one.name)


def test_a_network_stands_in_the_column_that_was_asked_for_unless_it_is_far_from_it() -> None:
    entries = [boards.make("dense", 1.0)]
    for pruner, nominal, ratio in (("cstar", 10.0, 10.4), ("flying-bird-plus", 10.0, 25.0)):
        entry = boards.make(pruner, ratio)
        entry["cell"]["compression"] = nominal
        entries.append(entry)
    (grid,) = grids(families(make_rows(entries)))
    assert {name: list(shades) for name, shades in grid.rows.items()} == {"cstar": [10.0], "flying-bird-plus": [25.0]}


def test_shades_fall_with_what_is_kept() -> None:
    levels = [Shade(kept, 0, 1, 1).level for kept in (1.2, *SHADES, 0.0)]
    assert levels == [0, 0, 1, 2, 3, 4, 5]
