"""Rules of the house that imports and folders show; `lint-imports` holds the order of the floors."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import house
from tests.house import __main__, entrances, homonyms, words
from tests.house.floors import floors
from tests.house.ratchets import EXAMPLES, OWN_TESTS, RATCHETS, WORDS, Ratchet


@pytest.mark.slow
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
    assert [str(folder) for folder in floors(pairs)] == ["p: 4 rooms, 3 floors, 4 arrows, 1 up; circle of a, b, c"]


@given(st.sets(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")).filter(lambda pair: pair[0] != pair[1])))
def test_no_order_of_the_rooms_has_fewer_arrows_up(letters: set[tuple[str, str]]) -> None:
    pairs = {(f"p.{one}", f"p.{other}") for one, other in letters}
    orders = itertools.permutations("abcde")
    fewest = min(sum(order.index(one) > order.index(other) for one, other in letters) for order in orders)
    assert sum(folder.up for folder in floors(pairs)) == fewest
    for folder in floors(pairs):
        assert (folder.up == 0) == (not folder.circles)
        assert folder.floors <= folder.rooms


def test_every_module_has_tests_of_its_own_where_its_name_says() -> None:
    assert OWN_TESTS.problems() == []


def test_every_public_entrance_is_there_and_has_an_example() -> None:
    assert entrances.missing() == []
    assert EXAMPLES.problems() == []


def test_variables_bear_their_types_nouns() -> None:
    assert WORDS.problems() == []


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("found = 1", ["found"]),
        ("found, rows = 1, 2", ["found"]),
        ("self.asked = rows", ["asked"]),
        ("for wanted in rows: pass", ["wanted"]),
        ("rows = [seen for seen in rows]", ["seen"]),
        ("def f(given, *taken, **known): pass", ["given", "known", "taken"]),
        ("f = lambda done: 1", ["done"]),
        ("with f() as made: pass", ["made"]),
        ("try: pass\nexcept E as told: pass", ["told"]),
        ("match row:\n case [got, *made]: pass", ["got", "made"]),
        ("if (found := f()): pass", ["found"]),
        ("found += 1", ["found"]),
        ("given: str", ["given"]),
        ("def f(found: bool, seen: list[bool], made: npt.NDArray[np.bool_]): pass", []),
        ("done = False", []),
        ("done = not rows and rows > 2", []),
        ("done = rows and True", ["done"]),
        ("found = any(rows)", []),
        ("seen: set[str] = set()", ["seen"]),
        ("done: bool = f()", []),
        ("self.done = mask.all()", []),
        ("for done in (True, False): pass", []),
        ("from hypothesis import given", []),
        ("f(given=1).found(row.made)", []),
        ("def found(): pass", []),
        ("kept, left = rows", []),
    ],
)
def test_bare_names_are_seen_unless_they_are_boolean(line: str, names: list[str], tmp_path: Path) -> None:
    assert sorted(name for name, _ in words.bare_names(ast.parse(line))) == names
    # A file is parsed only where it looks as if it had one.
    (tmp_path / "x.py").write_text(line)
    assert sorted(place.rpartition(": ")[2] for place in words.places([tmp_path / "x.py"], tmp_path)) == names


def test_words_are_counted_by_folder_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "bench" / "a").mkdir(parents=True)
    (tmp_path / "prunecert").mkdir()
    (tmp_path / "prunecert" / "bench").symlink_to(tmp_path / "bench")
    (tmp_path / "bench" / "x.py").write_text("made = 1\nmade = 2\n")
    (tmp_path / "bench" / "a" / "y.py").write_text("def f(given): pass\n")
    assert words.counts(tmp_path) == {"bench": 2, "bench/a": 1}
    assert words.places(words.sources(tmp_path), tmp_path)[1:] == ["bench/x.py:1: made", "bench/x.py:2: made"]


def test_examples_are_a_names_own_or_its_methods_or_of_a_value_the_modules(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text(
        '"""Values.\n\n>>> sorted(HELD)\n[]\n"""\nHELD, OTHER = [], []\nHELD = []\nALSO: list[int] = []\n'
        'def shown():\n    """A.\n\n    >>> 1\n    1\n    """\ndef silent():\n    """A."""\n'
        'class Shown:\n    def method(self):\n        """A.\n\n        >>> 1\n        1\n        """\n'
    )
    assert entrances.examples(source) == {"HELD", "shown", "Shown"}
    assert entrances.public(source) == {"ALSO", "HELD", "shown", "silent", "Shown"}


def test_a_ratchet_may_only_shrink(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = {"a": 1, "b": 2}
    ratchet = Ratchet(tmp_path / "x.txt", "mend it", lambda: now)
    ratchet.path.write_text("a\nb 2\nc\n")
    assert ratchet.problems() == ["x.txt says 4, there are 3: python -m tests.house --write"]
    assert ratchet.write() == "x.txt: 4, now 3"
    assert ratchet.path.read_text() == "a\nb 2\n"
    assert ratchet.problems() == []
    now["b"] = 3
    assert ratchet.problems() == ["b (3): mend it"]
    assert ratchet.write() == "x.txt is not written: 1 are new:\n  b (3): mend it"
    # What moves from one folder to another is new there, and yet not more.
    now.update(a=0, d=0)
    assert ratchet.write() == "x.txt: 3, now 3"
    assert all(ratchet.path.is_file() for ratchet in RATCHETS)


def test_the_house_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["--arrows"]) == 0
    assert "\nprunecert.verifiers.sparse: " in capsys.readouterr().out
    assert __main__.main(["--words", str(Path(words.__file__))]) == 0
    assert capsys.readouterr().out == "\n"


def test_nothing_is_imported_by_a_name_that_only_a_checkout_has() -> None:
    sources = [*house.modules().values(), *(house.ROOT / "tests").rglob("*.py")]
    pattern = re.compile(rf"^\s*(?:from|import) (?:{'|'.join(house.PACKAGES)})\b", re.MULTILINE)
    assert not [source for source in sources if pattern.search(source.read_text())]


def test_verbs_are_short() -> None:
    verbs = [source for source in house.modules().values() if source.parent == house.ROOT / "bench"]
    lengths = {source.stem: len(source.read_text().splitlines()) for source in verbs}
    assert {verb: lines for verb, lines in lengths.items() if lines > 80 and not verb.endswith("options")} == {}


def test_modules_have_at_most_400_lines() -> None:
    lengths = {module: len(source.read_bytes().splitlines()) for module, source in house.modules().items()}
    assert {module: lines for module, lines in lengths.items() if lines > 400} == {}


def test_no_two_public_classes_share_a_name_without_a_reason() -> None:
    assert set(homonyms.homonyms()) == set(homonyms.REASONS)


def test_a_name_that_two_modules_give_a_class_is_seen(tmp_path: Path) -> None:
    texts = {"a": "class Same: pass\nclass _Own: pass\n", "b": "class Same: pass\nclass _Own: pass\nclass One: pass\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    assert homonyms.homonyms({name: tmp_path / f"{name}.py" for name in texts}) == {"Same": ["a", "b"]}
