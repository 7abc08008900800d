"""The pages lead where they say, and the commands that they name exist."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from prunecert.__main__ import VERBS
from tests import house

PAGES = sorted([*house.ROOT.glob("*.md"), *house.ROOT.glob("docs/*.md"), house.ROOT / "results" / "README.md"])
#: Verbs whose options are those of a word behind them.
_SUBCOMMANDS = ("certificate", "sparse-benchmark")
NAMES = [str(page.relative_to(house.ROOT)) for page in PAGES]


def _prose(page: Path) -> str:
    """The text without its fenced blocks, whose brackets are no links."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def _anchors(page: Path) -> set[str]:
    """What a heading can be linked by: lower case, no punctuation, hyphens for blanks."""
    headings = re.findall(r"^#+ (.*)$", _prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def _options(module: str, *words: str) -> set[str]:
    """The options that the help of a module's command names, with other words before it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *words, "--help"])
        importlib.import_module(module).main()
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", out.getvalue()))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


def test_every_page_is_reached_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [house.ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)[^)]*\)", _prose(page)):
            if not re.match(r"[a-z]+:", target):
                waiting.append((page.parent / target).resolve())
    assert {page for page in PAGES if page.parent.name == "docs"} <= reached


def test_the_readme_is_short() -> None:
    assert len((house.ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_name_verbs_that_exist(page: Path) -> None:
    for verb in set(re.findall(r"python -m (bench\.\w+(?:\.\w+)*)", page.read_text(encoding="utf-8"))):
        source = house.ROOT / f"{verb.replace('.', '/')}.py"
        assert source.is_file(), verb
        assert '\nif __name__ == "__main__":\n' in source.read_text(encoding="utf-8"), verb


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_name_options_that_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("it tells of options that are gone, too")
    text = page.read_text(encoding="utf-8")
    commands = re.findall(r"`(python -m bench\.[^`]*)`", text) + re.findall(r"(python -m bench\..*)$", text, flags=re.M)
    for command in commands:
        for part in re.split(r"&&|\|", command):
            verb = re.search(r"python -m (bench\.\w+(?:\.\w+)*)(?: ([a-z]+)(?= --))?", part)
            if verb:
                options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", part.partition("`")[0])
                assert set(options) <= _options(f"prunecert.{verb[1]}", *filter(None, [verb[2]])), part


def _helped(verb: str, subcommand: str) -> set[str]:
    """The options that the help of a verb names, or of one of its subcommands."""
    module = VERBS[verb].target.partition(":")[0]
    return _options(module, *VERBS[verb].first, *filter(None, [subcommand]))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_installed_commands_and_their_options_exist(page: Path) -> None:
    """As `prunecert VERB`, in blocks and between backquotes."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    for verb, rest in re.findall(r"(?:^ *|`|\$ |&& )prunecert ([a-z][a-z-]*)\b([^`\n|&]*)", text, flags=re.M):
        assert verb in VERBS, verb
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest.partition(" #")[0])) - {"--help"}
        subcommand = rest.split()[0] if verb in _SUBCOMMANDS and rest.split() else ""
        allowed = _helped(verb, subcommand) | (_helped("run", "") if verb == "gate" else set())
        assert options <= allowed, f"prunecert {verb}{rest}"


def test_what_troubleshooting_quotes_is_said_by_the_program() -> None:
    """Of each quotation the longest piece between names and numbers, or five words of it, is in a string of ours."""
    sources = (
        file for top in ("bench", "models", "verifiers", "prunecert") for file in (house.ROOT / top).rglob("*.py")
    )
    # Literals that stand beside each other are one.
    said = re.sub(r'"\s*\n\s*f?"', "", "\n".join(file.read_text(encoding="utf-8") for file in sources))
    page = (house.ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quotations = re.findall(r"^\| \*(.+?)\*", page, flags=re.M)
    assert len(quotations) > 15
    for quotation in quotations:
        words = max(re.split(r"\S*[\d'\"…]\S*", quotation), key=len).split()
        pieces = [" ".join(words[start : start + 5]) for start in range(max(len(words) - 4, 1))]
        assert any(piece in said for piece in pieces), quotation
