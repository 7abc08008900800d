from __future__ import annotations

import pytest

from prunecert.bench.leaderboard.runs import LargerRun
from prunecert.bench.results.decode import build
from prunecert.bench.results.ratios import unpaired_ratio
from prunecert.bench.results.summary_types import Summary
from prunecert.bench.site.ranking import ranks
from prunecert.bench.site.view import classes, families, make_rows
from tests.bench import boards


def test_retention_is_paired_with_the_dense_control_of_the_same_protocol() -> None:
    dense, pruned = boards.make("dense", 1.0), boards.make("lwm", 10.0)
    other = boards.make("dense", 1.0, by="somebody else")
    rows = {row.name: row for row in make_rows([pruned, other, dense])}
    row = rows[pruned["name"]]
    assert row.dense is not None
    assert row.dense.name == dense["name"]
    assert row.kept is not None
    ours, theirs = (e["result"]["verified"]["k"] for e in (pruned, dense))
    assert row.kept["verified"].value == pytest.approx(ours / theirs)
    assert rows[dense["name"]].kept is None
    assert make_rows([pruned, other])[0].kept is None


def test_a_run_over_more_images_is_what_is_shown_and_ranked() -> None:
    entries = [boards.make("dense", 1.0), boards.make("lwm", 10.0), boards.make("hydra", 10.0)]
    larger = {}
    for entry in entries[:2]:
        summary = boards.larger(entry, 1000)
        summary["machine"] = {**summary["machine"], "cpu": "another"}
        run = build(Summary, summary)
        larger[entry["name"]] = LargerRun("zoo/run.json", run.cells[0], run)
    rows = make_rows(entries, larger)
    main, others = classes(rows)
    assert [row.images for row in main] == [1000, 1000]
    assert [[row.name for row in group] for group in others] == [[entries[2]["name"]]]
    pruned = next(row for row in main if row.cell["pruner"] == "lwm")
    assert (pruned.own_images, pruned.own_result) == (boards.IMAGES, entries[1]["result"])
    assert pruned.dense is not None
    assert pruned.kept is not None
    verified = pruned.kept["verified"]
    assert (verified.value, verified.low, verified.high) == unpaired_ratio(500, 500, 1000)
    assert not verified.paired
    # Its times are those of the larger run's machine, whatever the entry ran on.
    assert (pruned.machine[0], pruned.own_machine[0]) == ("another", "x")
    # The control's shares are of other images than this one's.
    assert others[0][0].dense is None
    assert make_rows(entries)[0].images == boards.IMAGES


def test_without_a_thousand_images_the_most_are_ranked() -> None:
    rows = make_rows([boards.make(), boards.make("hydra", images=70), boards.make("hydra", 2.0, images=70)])
    main, others = classes(rows)
    assert [row.images for row in main] == [70, 70]
    assert [row.images for group in others for row in group] == [boards.IMAGES]
    assert classes([]) == ([], [])


def test_networks_on_other_data_are_a_class_of_their_own() -> None:
    digits = [boards.make(pruner, images=70, source="digits") for pruner in ("lwm", "hydra")]
    rows = make_rows([boards.make(), boards.make("hydra"), *digits])
    main, (rest,) = classes(rows)
    assert {row.data_name for row in main} == {"digits"}, "they have more images"
    assert {row.data_name for row in rest} == {"CIFAR-10"}
    assert {rank.of for rank in ranks(rows).values()} == {2}
    assert rest[0].class_names[3] == "cat"
    assert main[0].class_names == ()
    thousand = make_rows([boards.make(images=1000), boards.make(images=1000, source="digits"), *digits])
    main, others = classes(thousand)
    assert [row.data_name for row in main] == ["CIFAR-10"]
    assert [group[0].images for group in others] == [1000, 70]


def test_titles_tell_networks_apart() -> None:
    rows = make_rows([boards.make(seed=1), boards.make("dense", 1.0, objective="sabr", title="Theirs")])
    assert {row.full_title for row in rows} == {
        "lwm 10×, cnn-small, ibp, ε = 2/255, seed 1",
        "Theirs, cnn-small, sabr, ε = 2/255, seed 0",
    }
    assert [family[1] for family in families(rows)] == ["ibp", "sabr"]
