from __future__ import annotations

from prunecert.bench.leaderboard.entry import seal
from prunecert.bench.site.impact import by_class, impacts
from prunecert.bench.site.view import make_rows
from tests.bench import boards


def test_a_class_that_loses_its_guarantees_is_seen_and_the_others_are_not() -> None:
    dense, pruned = boards.make("dense", 1.0), boards.make("lwm", 10.0)
    for entry in (dense, pruned):
        # Image 0 is misclassified; the others' classes follow from their numbers.
        keeps = [entry is dense or image % 10 != 3 for image in range(1, boards.IMAGES)]
        entry["verdicts"]["ibp"]["status"] = ["unsat" if yes else "unknown" for yes in keeps]
        entry["verdicts"]["pgd"]["status"] = ["unknown"] * (boards.IMAGES - 1)
        seal(entry)
    rows = make_rows([dense, pruned])
    row = next(row for row in rows if row.cell["pruner"] == "lwm")
    table = by_class(row)
    assert table is not None
    headings = [heading for heading, _ in table.columns]
    losses = {line[0]: line[headings.index("verified")] for line in table.rows}
    assert losses.pop("cat (6)") == "100→0"
    assert all(text.rstrip("*").partition("→")[0] == text.rstrip("*").partition("→")[2] for text in losses.values())
    assert by_class(next(row for row in rows if row.cell["pruner"] == "dense")) is None
    (impact,) = impacts(rows)
    (lost,) = impact.exemplars.rows
    assert dict(zip((heading for heading, _ in impact.exemplars.columns), lost, strict=True))["lost"] == "6"
    assert impact.title == "cnn-small, ibp, ε = 2/255"


def test_costs_and_potential_stand_beside_and_a_training_is_charged_its_pre_training() -> None:
    entries = [boards.make("dense", 1.0), boards.make("lwm", 10.0), boards.make("hydra", 10.0)]
    for entry in entries:
        recipe = {"pretrain_epochs": 20, "prune_epochs": 3, "finetune_epochs": 7}
        entry["training"] |= {"train_seconds": 600.0, "recipe": recipe}
    (impact,) = impacts(make_rows(entries))
    more = {heading: table for heading, table, _ in impact.more}
    assert list(more) == ["Groups of methods", "Prune potential", "What they cost"]
    assert {row[0]: row[2] for row in more["What they cost"].rows} == dict.fromkeys(("dense", "lwm", "hydra"), "~30.0")
    assert more["Groups of methods"].rows[0][0] == "HYDRA against LWM"


def test_of_two_seeds_other_trainings_are_told() -> None:
    pruners = {"dense": 1.0, "lwm": 10.0, "hydra": 10.0}
    entries = [boards.make(pruner, ratio, seed=seed) for pruner, ratio in pruners.items() for seed in (0, 1)]
    (impact,) = impacts(make_rows(entries))
    more = {heading: table for heading, table, _ in impact.more}
    assert list(more)[1:3] == ["Other trainings", f"Other trainings, 10×, {boards.IMAGES} images"]
    assert [row[2] for row in more["Other trainings"].rows] == ["0, 1"]


def test_a_reconstruction_says_so_but_not_somebody_s_own_method_of_that_name() -> None:
    ours, theirs = boards.make("deadwooding", 10.0), boards.make("deadwooding", 20.0)
    theirs["training"] = None
    notes = {row.compression: row.notes for row in make_rows([ours, theirs])}
    assert any("reconstruction of its abstract" in note for note in notes[10.0])
    assert not any("reconstruction" in note for note in notes[20.0])


def test_submitters_are_not_taken_for_seeds_of_each_other() -> None:
    entries = [
        boards.make(pruner, ratio, by=by) for by in ("A", "B") for pruner, ratio in (("dense", 1.0), ("lwm", 10.0))
    ]
    shown = impacts(make_rows([*entries, boards.make("lwm", 2.0, network="alone")]))
    assert [impact.title.rpartition(", by ")[2] for impact in shown] == ["A", "B"]
    headings = [heading for heading, _ in shown[0].exemplars.columns]
    assert {row[headings.index("seeds")] for impact in shown for row in impact.exemplars.rows} == {"1"}
