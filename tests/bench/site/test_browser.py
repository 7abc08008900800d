from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import boards
from tests.bench.boards import NASTY, nasty_board

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
        # The browser's own pages, such as the tab that it begins with, may complain.
        assert [line for line in driver.get_log("browser") if not line["message"].startswith("chrome://")] == []
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


@pytest.mark.slow
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
    # Methods go by their place in the taxonomy, in the table and in the figures; dense controls stay.
    choose(browser, "criterion", "learned magnitude")
    assert set(column(browser, "pruner")) == {"hydra", "dense"}
    methods = browser.find_elements("css selector", "#methods ~ .wide tr.method:not([hidden]) th")
    assert [head.text for head in methods] == ["hydra"]
    click(browser, "button[type=reset]")
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


@pytest.mark.slow
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
    choose(browser, "sort", "compr.")
    click(browser, "#turn")
    shown = [float(text.rstrip("×")) for text in column(browser, "compression")]
    assert shown == sorted(shown)


@pytest.mark.slow
@pytest.mark.browser
def test_without_scripts_the_whole_table_is_there(site: Path, browser: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get((site / "index.html").as_uri())
    assert len(browser.find_elements("css selector", "#board tbody tr")) == len(nasty_board())
    assert not browser.find_element("id", "filters").is_displayed()


@pytest.mark.slow
@pytest.mark.browser
def test_axe_finds_nothing(site: Path, browser: Any) -> None:
    axe = pytest.importorskip("axe_core_python", reason="needs axe-core-python (extra 'test')")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    entry = boards.make("lwm", 10.0)["name"]
    # On a busy machine it takes longer than the driver's half minute.
    browser.set_script_timeout(300)
    for page in (site / "index.html", site / "entries" / f"{entry}.html"):
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            browser.get(page.as_uri())
            # What is folded is read, too.
            browser.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
            browser.execute_script(script)
            verdict = browser.execute_async_script("axe.run().then(arguments[0])")
            assert verdict["passes"]
            assert [(rule["id"], rule["nodes"][0]["html"]) for rule in verdict["violations"]] == []
