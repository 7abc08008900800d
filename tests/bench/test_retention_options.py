"""The options of retention are read as they are meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.retention_options import check, parser
from prunecert.errors import UserError


def test_ratios_are_numbers_with_commas() -> None:
    options = parser(None).parse_args(["--proved", "run", "--compression", "1,10, 2.5"])
    assert (options.compression, options.proved) == ({1.0, 10.0, 2.5}, Path("run"))
    with pytest.raises(UserError, match=r"Compression 'ten' is refused; write ratios, e.g. 1,10,100"):
        parser(None).parse_args(["--compression", "ten"])


def test_options_that_do_not_go_together_are_refused() -> None:
    for line, words in (
        (["--proved", "run", "results"], "--proved goes without results"),
        (["--proved", "run", "--figures", "f"], "--proved goes without --figures"),
        (["--figures", "f"], "--figures goes with a run"),
        (["results", "--figures", "f", "--about", "networks"], "--figures goes with a run"),
    ):
        with pytest.raises(UserError, match=words):
            check(parser(None).parse_args(line))
    for line in (["results", "--figures", "f", "--suite", "s"], ["--proved", "run"], []):
        check(parser(None).parse_args(line))
