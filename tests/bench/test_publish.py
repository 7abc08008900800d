from __future__ import annotations

import csv
import json
import re
import shutil
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.bench.leaderboard.entry import Entry, seal
from prunecert.bench.publish import main
from prunecert.bench.results.stats import paired_ratio
from prunecert.bench.site import downloads
from prunecert.bench.site.svg import Axis
from prunecert.bench.site.view import make_rows
from prunecert.errors import UserError
from tests.bench import boards

NASTY = "<script>alert(1)</script>"
QUOTED = "\"'><img src=x onerror=alert(1)>"


def nasty_board() -> list[Entry]:
    entries = boards.small_board()
    entries.append(boards.make(NASTY, 20.0, network=QUOTED, objective=NASTY, by=NASTY, title=NASTY, name="nasty"))
    entries.append(boards.make("dense", 1.0, network=QUOTED, objective=NASTY, by=NASTY, name="nasty-dense"))
    entries.append(boards.make("attack-only", 4.0, verifiers=("pgd",), by="=1+1", title="@SUM(A1)"))
    entries[-3]["method"].update(url="https://example.org/?a=1&b=2", notes=NASTY)
    entries[-3]["protocol"]["command"].append(NASTY)
    entries[-3]["weights"]["layers"][0]["name"] = NASTY
    entries[-3] = seal(entries[-3])
    return entries


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("publish")
    assert main([str(boards.write(folder / "results", *nasty_board())), "--out", str(folder / "site")]) == 0
    return folder / "site"


def test_of_two_entries_that_contradict_each_other_neither_is_shown(tmp_path: Path) -> None:
    honest, forged = boards.make(), boards.make(by="rival", name="aaa")
    honest["verdicts"]["ibp"]["status"][0], honest["verdicts"]["pgd"]["status"][0] = "unsat", "unknown"
    forged["verdicts"]["ibp"]["status"][0], forged["verdicts"]["pgd"]["status"][0] = "unknown", "sat"
    network = honest["files"]["onnx_sha256"]
    forged["files"]["onnx_sha256"] = network
    forged["protocol"]["image_key"] = honest["protocol"]["image_key"]
    boards.rekey(forged)
    third = boards.make("hydra")
    root = boards.write(tmp_path, seal(honest), seal(forged), third)
    with pytest.raises(UserError, match="says otherwise") as caught:
        main([str(root), "--out", str(tmp_path / "site")])
    assert {line.partition(".json")[0] for line in caught.value.details} == {honest["name"], forged["name"]}
    assert main([str(root), "--out", str(tmp_path / "site"), "--skip-invalid"]) == 0
    assert [path.stem for path in (tmp_path / "site" / "entries").glob("*.json")] == [third["name"]]


def test_a_folder_that_may_not_be_written_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = boards.write(tmp_path, boards.make())
    (tmp_path / "site").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="this user may not write into it"):
        main([str(root), "--out", str(tmp_path / "site")])
    with pytest.raises(UserError, match="root of the file system"):
        main([str(root), "--out", "/"])
    # Nothing is left beside it.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["leaderboard", "site"]


class Tags(HTMLParser):
    """Collects start tags, checks that they are closed in order, and keeps every address."""

    VOID = frozenset({"meta", "link", "br", "input", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("href", "src", "action", "data")]
        assert not any(key.startswith("on") or key == "style" for key, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

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
        assert "img" not in tags.seen
        assert tags.seen.count("script") == 2
        for address in tags.addresses:
            outside = re.match(r"[a-z]+:|//", address)
            assert outside is None or address in ("data:,", "https://example.org/?a=1&b=2"), address
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


def test_an_attack_alone_says_nothing_of_verified_accuracy(site: Path) -> None:
    entry = boards.make("attack-only", 4.0, verifiers=("pgd",), by="=1+1", title="@SUM(A1)")
    assert "not asked" in (site / "entries" / f"{entry['name']}.html").read_text()
    (record,) = [r for r in read_csv(site) if r["name"] == entry["name"]]
    assert record["verified_share"] == ""
    assert record["attacked_share"] != ""


def read_csv(site: Path) -> list[dict[str, str]]:
    with (site / "leaderboard.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_csv_has_full_precision_and_no_formula(site: Path) -> None:
    records = read_csv(site)
    assert len(records) == len(nasty_board())
    assert {record["by"] for record in records} == {"tester", NASTY, "'=1+1"}
    assert "'@SUM(A1)" in {record["title"] for record in records}
    for record in records:
        entry = json.loads((site / "entries" / f"{record['name']}.json").read_text())
        assert float(record["attacked_share"]) == entry["result"]["attacked"]["value"]
        assert not any(value.startswith(("=", "+", "@")) for value in record.values())


def test_parquet_holds_the_same_records(site: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow (extra 'publish')")
    table = parquet.read_table(site / "leaderboard.parquet").to_pylist()
    wanted = [downloads.record(row) for row in make_rows(nasty_board())]
    assert table == wanted


def test_without_pyarrow_the_extra_is_named_and_nothing_links_to_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(downloads, "has_pyarrow", lambda: False)
    root = boards.write(tmp_path / "results", boards.make())
    assert main([str(root), "--out", str(tmp_path / "site")]) == 0
    assert "pip install 'prunecert[publish]'" in capsys.readouterr().out
    assert "parquet" not in (tmp_path / "site" / "index.html").read_text()
    with pytest.raises(UserError, match="prunecert\\[publish\\]"):
        downloads.write_parquet([{}], tmp_path / "x.parquet")


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


def test_paired_ratio_covers_and_takes_the_ends() -> None:
    rng = np.random.default_rng(0)
    shares = (0.4, 0.03, 0.08, 0.49)
    true = (shares[0] + shares[1]) / (shares[0] + shares[2])
    hits = [low <= true <= high for low, high in _intervals(rng.multinomial(50, shares, size=2000))]
    assert 0.93 <= np.mean(hits) <= 0.985
    ratio, low, high = paired_ratio(0, 0, 9)
    assert ratio == low == 0
    assert 0 < high < 1
    assert paired_ratio(9, 0, 0)[0] == 1
    a, b = paired_ratio(20, 7, 2), paired_ratio(20, 2, 7)
    assert a[0] == pytest.approx(1 / b[0])
    assert a[1] == pytest.approx(1 / b[2])
    for wrong in ((0, 3, 0), (-1, 2, 3)):
        with pytest.raises(ValueError, match="counts"):
            paired_ratio(*wrong)


def _intervals(tables: Any) -> Iterator[tuple[float, float]]:
    for both, first, second, _ in tables.tolist():
        _, low, high = paired_ratio(both, first, second)
        yield low, high


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [0.001, 4000.0], [0.037, 0.039], [12.0, 87.0], []])
def test_axes_have_round_ticks_within_their_range(values: list[float], log: bool) -> None:
    axis = Axis(values, 0.0, 100.0, log=log)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 10
    assert all(-1e-6 <= axis(tick) <= 100 + 1e-6 for tick in ticks)
    assert all(0 <= axis(value) <= 100 for value in values)


def test_an_invalid_entry_stops_publishing_unless_it_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = boards.write(tmp_path / "results", *boards.small_board()[:2])
    (root / "leaderboard" / "wrong.json").write_text("{}")
    with pytest.raises(UserError, match=r"nothing is published.*\n.*wrong\.json: kind"):
        main([str(root), "--out", str(tmp_path / "site")])
    assert not (tmp_path / "site").exists()
    assert main([str(root), "--out", str(tmp_path / "site"), "--skip-invalid"]) == 0
    assert "left out: wrong.json: kind" in capsys.readouterr().out
    assert len(list((tmp_path / "site" / "entries").glob("*.html"))) == 2


def test_an_earlier_site_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    root = boards.write(tmp_path / "results", *boards.small_board()[:3])
    out = tmp_path / "site"
    assert main([str(root), "--out", str(out)]) == 0
    next((root / "leaderboard").iterdir()).unlink()
    assert main([str(root), "--out", str(out)]) == 0
    assert len(list((out / "entries").glob("*.html"))) == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(UserError, match="no site of ours"):
        main([str(root), "--out", str(root)])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no leaderboard entry"):
        main([str(empty), "--out", str(out)])


def test_a_page_of_the_board_is_made_fast_enough(tmp_path: Path) -> None:
    entries = [boards.make("lwm", 2.0 + i / 10, seed=i % 5) for i in range(100)]
    root = boards.write(tmp_path / "results", *entries)
    began = time.process_time()
    assert main([str(root), "--out", str(tmp_path / "site")]) == 0
    # 2,000 in 60 s is 30 ms an entry; processor time, so that a busy machine has no say.
    assert time.process_time() - began < 100 * 0.03 + 2.0


CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (extra 'test')")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium and its driver (Debian's chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
        assert driver.get_log("browser") == []
    finally:
        driver.quit()


def column(browser: Any, label: str) -> list[str]:
    """Returns the visible texts of a column."""
    cells = f"document.querySelectorAll(`#board tbody [data-l='{label}']`)"
    return [str(text) for text in browser.execute_script(f"return [...{cells}].map(cell => cell.textContent.trim())")]


def click(browser: Any, css: str) -> None:
    browser.find_element("css selector", css).click()


def choose(browser: Any, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("name", name)).select_by_visible_text(value)


@pytest.mark.browser
def test_sort_filter_and_open_a_row_in_a_browser(site: Path, browser: Any) -> None:
    browser.get((site / "index.html").as_uri())
    total = len(nasty_board())
    status = browser.find_element("id", "status")
    assert status.text == f"{total} entries"
    # Sorted by verified accuracy, falling first; the entry without one is last in both directions.
    click(browser, "th[data-key=verified] button")
    assert browser.find_element("css selector", "th[data-key=verified]").get_attribute("aria-sort") == "descending"
    shown = [float(text.split()[0]) for text in column(browser, "verified") if text != "–"]
    assert shown == sorted(shown, reverse=True)
    click(browser, "th[data-key=compression] button")
    click(browser, "th[data-key=compression] button")
    assert browser.find_element("css selector", "th[data-key=compression]").get_attribute("aria-sort") == "ascending"
    assert browser.find_element("css selector", "th[data-key=verified]").get_attribute("aria-sort") == "none"
    ratios = [float(text.rstrip("×")) for text in column(browser, "compression")]
    assert ratios == sorted(ratios)
    # Filters add up; the address remembers them.
    choose(browser, "network", "cnn-large")
    choose(browser, "eps", "8/255")
    choose(browser, "verifier", "ibp")
    browser.find_element("name", "from").send_keys("10")
    assert status.text == f"4 of {total} entries"
    assert set(column(browser, "network")) == {"cnn-large"}
    assert set(column(browser, "compression")) == {"10×", "100×"}
    assert len(browser.find_elements("css selector", ".panel:not([hidden])")) == 1
    browser.get(browser.current_url)
    browser.refresh()
    assert browser.find_element("id", "status").text == f"4 of {total} entries"
    assert browser.find_element("css selector", "th[data-key=compression]").get_attribute("aria-sort") == "ascending"
    assert [float(text.rstrip("×")) for text in column(browser, "compression")] == [10, 10, 100, 100]
    click(browser, "button[type=reset]")
    # By keyboard: a heading is a button that Enter presses.
    head = browser.find_element("css selector", "th[data-key=pruner] button")
    head.send_keys("\n")
    assert column(browser, "pruner") == sorted(column(browser, "pruner"))
    assert browser.find_element("id", "status").text == f"{total} entries"
    # Somebody's tags are text.
    assert NASTY in column(browser, "pruner")
    browser.find_element("name", "q").send_keys("nasty")
    assert len(column(browser, "entry")) == 2
    # A row opens its page, and the page goes back.
    click(browser, "button[type=reset]")
    choose(browser, "pruner", "hydra")
    click(browser, "#board tbody tr a")
    assert "hydra" in browser.find_element("tag name", "h1").text
    assert browser.find_elements("css selector", "#protocol")
    assert len(browser.find_elements("css selector", "svg.plot")) == 5
    click(browser, "nav a")
    assert browser.find_element("id", "board")


@pytest.mark.browser
def test_themes_and_narrow_screens_in_a_browser(site: Path, browser: Any) -> None:
    def colour() -> str:
        return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))

    def media(scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    browser.get((site / "index.html").as_uri())
    media("light")
    light = colour()
    media("dark")
    dark = colour()
    assert light != dark
    click(browser, "#theme")
    assert (browser.find_element("id", "theme").text, colour()) == ("Theme: light", light)
    media("light")
    click(browser, "#theme")
    assert (browser.find_element("id", "theme").text, colour()) == ("Theme: dark", dark)
    size = {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    pages = [site / "index.html", *sorted((site / "entries").glob("*.html"))[:3]]
    for page in pages:
        browser.get(page.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        assert colour() == dark
    browser.get(pages[0].as_uri())
    # The table keeps its roles where it is laid out as cards.
    assert browser.find_element("css selector", "#board tbody tr").get_attribute("role") == "row"
    choose(browser, "sort", "sparsity")
    click(browser, "#turn")
    shown = [float(text) for text in column(browser, "sparsity")]
    assert shown == sorted(shown)


@pytest.mark.browser
def test_without_scripts_the_whole_table_is_there(site: Path, browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get((site / "index.html").as_uri())
    assert len(browser.find_elements("css selector", "#board tbody tr")) == len(nasty_board())
    assert not browser.find_element("id", "filters").is_displayed()


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
