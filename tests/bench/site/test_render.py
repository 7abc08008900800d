from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from prunecert.bench.site import render
from prunecert.bench.site.ranking import ranks
from prunecert.bench.site.view import make_rows
from tests.bench import boards
from tests.bench.boards import nasty_board


class Tags(HTMLParser):
    """Collects start tags, checks that they are closed in order, and keeps every address."""

    VOID = frozenset({"meta", "link", "br", "input", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.all: list[tuple[str, dict[str, str], tuple[str, ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.all.append((tag, {key: value or "" for key, value in attrs}, tuple(self.open)))
        self.addresses += [value or "" for key, value in attrs if key in ("href", "src", "action", "data")]
        assert not any(key.startswith("on") or key == "style" for key, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_pages_are_well_formed_escaped_and_ask_nobody(site: Path) -> None:
    pages = [site / "index.html", *sorted((site / "entries").glob("*.html"))]
    assert len(pages) == 1 + len(nasty_board())
    for page in pages:
        text = page.read_text()
        tags = Tags()
        tags.feed(text)
        assert tags.open == []
        assert "alert(1)" not in "".join(re.findall(r"<script[^>]*>([^<]*)", text))
        assert "img" not in tags.names
        assert tags.names.count("script") == 2
        for address in tags.addresses:
            outside = re.match(r"[a-z]+:|//", address)
            ours = ("data:,", "https://example.org/?a=1&b=2")
            assert outside is None or address in ours or address.startswith("https://arxiv.org/abs/"), address
            if outside is None and not address.startswith("#"):
                assert (page.parent / address).is_file(), address
    for asset in site.glob("*.[cj]s*"):
        assert not re.search(r"https?://|@import|url\(", asset.read_text())


def test_a_row_shows_what_its_entry_says(site: Path) -> None:
    entry = boards.make("lwm", 10.0)
    page = (site / "entries" / f"{entry['name']}.html").read_text()
    verified = entry["result"]["verified"]
    assert f"{100 * verified['value']:.1f} %" in page
    assert f"({100 * verified['low']:.1f}–{100 * verified['high']:.1f})" in page
    for text in (
        entry["files"]["onnx_sha256"],
        entry["digest"],
        "prunecert run --suite made-up",
        "prunecert train",
        "Gemm_1",
    ):
        assert text in page
    assert page.count('<svg class="plot"') == 5
    assert json.loads((site / "entries" / f"{entry['name']}.json").read_text()) == entry


def test_a_board_of_ones_own_data_says_which_and_has_no_classes_of_cifar10() -> None:
    rows = make_rows([boards.make(source="digits"), boards.make("hydra", images=50)])
    env = render.environment()
    index = render.index(env, rows, ranks(rows), False)
    assert "on the first 60 test images of digits." in index
    assert "Entries on the first 50 images of CIFAR-10." in index
    own, other = (render.entry(env, row, rows) for row in rows)
    assert ("cat" in re.findall(r"<td>(\w+)</td>", own), "cat" in re.findall(r"<td>(\w+)</td>", other)) == (False, True)
    assert "hydra" not in own.partition("</h1>")[2].partition("<footer")[0], "other images are no family"


def test_pages_tell_everybody_what_is_where(site: Path) -> None:
    """What axe asks for too, without a browser: language, headings, landmarks, labels, headings of tables."""
    entry = boards.make("lwm", 10.0)
    for page in (site / "index.html", site / "entries" / f"{entry['name']}.html"):
        tags = Tags()
        tags.feed(page.read_text())
        assert ("html", {"lang": "en"}, ()) in tags.all
        levels = [int(tag[1]) for tag, _, _ in tags.all if re.fullmatch("h[1-6]", tag)]
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
        ids = [attributes["id"] for _, attributes, _ in tags.all if "id" in attributes]
        assert len(set(ids)) == len(ids)
        marks = [a for tag, a, _ in tags.all if a.get("role") == "region" or tag in ("section", "nav")]
        names = [a.get("aria-label") or a.get("aria-labelledby") for a in marks]
        assert all(names.count(name) == 1 for name in names if name), names
        assert {a["aria-labelledby"] for a in marks if "aria-labelledby" in a} <= set(ids)
        for tag, attributes, parents in tags.all:
            if tag in ("select", "input"):
                assert "label" in parents
            if tag == "th":
                assert attributes["scope"] in ("row", "col")
            if tag == "svg":
                assert attributes.get("aria-label") or "td" in parents
            if tag == "a":
                assert attributes["href"]
        scrolling = [a for _, a, _ in tags.all if a.get("class") == "wide"]
        assert scrolling
        assert all(a.get("tabindex") == "0" and a.get("role") == "region" for a in scrolling)


def test_board_and_pages_carry_objective_seed_rank_file_and_citation(site: Path) -> None:
    entry = boards.make("lwm", 10.0)
    index = (site / "index.html").read_text()
    assert '>lwm 10×<span class="sr">, cnn-small, ibp, ε = 2/255, seed 0</span></a>' in index
    assert 'data-key="rank"' in index
    page = (site / "entries" / f"{entry['name']}.html").read_text()
    assert "<title>lwm 10×, cnn-small, ibp, ε = 2/255, seed 0 – PruneCert leaderboard</title>" in page
    assert re.search(r"<dt>rank by verified accuracy</dt><dd>\d+ <small>of \d+; the intervals allow", page)
    for text in ("card.yaml", "@misc{prunecert-", "Learning both Weights", "--card card.yaml", "no address is given"):
        assert text in page
    assert "attacked" not in re.sub(r"<[^>]*>", " ", page)
