from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import shlex
import sys

import pytest

from prunecert.__main__ import VERBS
from prunecert.page_help import PageHelp
from tests import house

_SUBCOMMANDS = {"sparse-benchmark": ["complete", "reuse"], "certificate": ["write", "check"]}
_COMMANDS = [
    *((verb.target.partition(":")[0], *verb.first) for verb in VERBS.values()),
    *((VERBS[verb].target.partition(":")[0], word) for verb, words in _SUBCOMMANDS.items() for word in words),
    *(
        (f"prunecert.bench.engine.{path.stem}",)
        for path in sorted((house.ROOT / "bench" / "engine").glob("*.py"))
        if "run_main(main)" in path.read_text(encoding="utf-8")
    ),
]


def description(page: str, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    return argparse.ArgumentParser(description=page, formatter_class=PageHelp).format_help().splitlines()


def test_prose_is_filled_and_no_name_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = description("First words.\n\n" + "word-with-hyphens " * 12, 60, monkeypatch)
    lines = [line for line in lines if line.startswith("word-with-hyphens")]
    assert len(lines) > 1
    assert all(len(line) <= 60 and line.endswith("hyphens") for line in lines)


def test_a_command_goes_on_in_the_next_line_as_a_shell_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    short = "prunecert verb file --short"
    long = "prunecert verb with-a-command --that wants --to be --copied 'as it' --stands here --and more --of it"
    lines = description(f"Words.\n\n    {short}\n    {long}", 60, monkeypatch)
    assert f"    {short}" in lines
    assert max(map(len, lines)) <= 60
    first = next(k for k, line in enumerate(lines) if line.startswith("    prunecert verb with"))
    whole = "\n".join(lines[first:]).partition("\n\n")[0].replace("\\\n", "")
    assert shlex.split(whole) == shlex.split(long)
    assert all(re.match(r" {8}--", line) for line in lines[first + 1 : first + 2])


@pytest.mark.parametrize("command", _COMMANDS, ids=lambda command: " ".join(command).removeprefix("prunecert."))
def test_the_help_of_every_command_fits_on_a_screen(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", [*command, "--help"])
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        importlib.import_module(command[0]).main()
    lines = out.getvalue().splitlines()
    assert len(lines) > 4
    assert [line for line in lines if len(line) > 80 or re.search(r"[a-z]-$", line)] == []
