from __future__ import annotations

from prunecert.bench.site.view import make_rows
from tests.bench import boards


def test_seeds_share_a_colour_and_submitters_do_not() -> None:
    from prunecert.bench.site.figures import accuracy, series

    rows = make_rows([boards.make("dense", 1.0, seed=s) for s in (0, 1)] + [boards.make(seed=s) for s in (0, 1)])
    assert [(kind, name, len(line)) for kind, name, line in series(rows)] == [("s0", "lwm", 2), ("s0", "lwm", 2)]
    rows = make_rows([boards.make(by=f"person {i}") for i in range(10)])
    kinds = [kind for kind, _, _ in series(rows)]
    assert kinds == [f"s{i}" for i in range(8)] + ["rest"] * 2
    figure = accuracy(rows)
    assert figure is not None
    assert figure.legend[-1] == ("rest", "2 more")
