"""Rules of the house that imports and folders show; `lint-imports` holds the order of the floors."""

from __future__ import annotations

import re

from tests import house

#: Modules that are tested only through others; this may only shrink, and so may their number.
ALONE = house.ROOT / "tests" / "without_own_tests.txt"
MOST_ALONE = 151
#: Verbs that hold more than parsing, calling and printing; this may only shrink.
LONG_VERBS = {
    "adopt",
    "baseline",
    "compare",
    "export",
    "gate",
    "ls",
    "merge",
    "publish",
    "retention",
    "sparse_benchmark",
    "train",
    "verify",
}


def test_there_is_no_circle_between_rooms_of_any_folder() -> None:
    assert house.circles(house.rooms(house.arrows())) == set()


def test_models_and_verifiers_know_neither_each_other_nor_bench() -> None:
    tops = {(one.split(".")[1], other.split(".")[1]) for one, other in house.arrows() if "." in one and "." in other}
    assert not tops & {("models", "verifiers"), ("verifiers", "models"), ("models", "bench"), ("verifiers", "bench")}
    assert {("bench", "models"), ("bench", "verifiers")} <= tops


def test_circles_are_seen_between_rooms_and_not_between_a_package_and_what_lies_within() -> None:
    pairs = {("p.a.x", "p.b"), ("p.b", "p.c.y"), ("p.c.z", "p.a.w"), ("p.a", "p.a.x"), ("p.a.x", "p.a"), ("p.d", "p.a")}
    assert house.circles(house.rooms(pairs)) == {frozenset({"p.a", "p.b", "p.c"})}
    assert house.circles(house.rooms(pairs - {("p.c.z", "p.a.w")})) == set()
    assert house.drawing(pairs) == ["p: 4 rooms, 4 arrows, circle of p.a, p.b, p.c"]


def test_every_module_has_tests_of_its_own_where_its_name_says() -> None:
    allowed, alone = ALONE.read_text().split(), house.without_own_tests()
    missing = [house.own_tests(module)[0].relative_to(house.ROOT) for module in alone if module not in allowed]
    assert not missing, f"write these tests: {', '.join(map(str, missing))}"
    assert not set(allowed) - set(alone), f"delete these lines of {ALONE.name}: {sorted(set(allowed) - set(alone))}"
    assert len(allowed) <= MOST_ALONE


def test_nothing_is_imported_by_a_name_that_only_a_checkout_has() -> None:
    sources = [*house.modules().values(), *(house.ROOT / "tests").rglob("*.py")]
    pattern = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(house.PACKAGES)})\b", re.MULTILINE)
    assert not [source for source in sources if pattern.search(source.read_text())]


def test_verbs_are_short() -> None:
    verbs = [source for source in house.modules().values() if source.parent == house.ROOT / "bench"]
    lengths = {source.stem: len(source.read_text().splitlines()) for source in verbs}
    assert {verb for verb, lines in lengths.items() if lines > 80 and not verb.endswith("options")} == LONG_VERBS
