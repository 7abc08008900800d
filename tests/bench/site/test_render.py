from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

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

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
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
            known = ("data:,", "https://example.org/?a=1&b=2")
            assert outside is None or address in known or address.startswith("https://arxiv.org/abs/"), address
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
    for text in (entry["files"]["onnx_sha256"], entry["digest"], "bench.run --suite made-up", "bench.train", "Gemm_1"):
        assert text in page
    assert page.count('<svg class="plot"') == 5
    assert json.loads((site / "entries" / f"{entry['name']}.json").read_text()) == entry
