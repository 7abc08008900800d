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


def test_submitters_are_not_taken_for_seeds_of_each_other() -> None:
    entries = [
        boards.make(pruner, ratio, by=by) for by in ("A", "B") for pruner, ratio in (("dense", 1.0), ("lwm", 10.0))
    ]
    shown = impacts(make_rows([*entries, boards.make("lwm", 2.0, network="alone")]))
    assert [impact.title.rpartition(", by ")[2] for impact in shown] == ["A", "B"]
    headings = [heading for heading, _ in shown[0].exemplars.columns]
    assert {row[headings.index("seeds")] for impact in shown for row in impact.exemplars.rows} == {"1"}
