"""The options of retention are read as they are meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.retention_options import parser
from prunecert.errors import UserError


def test_ratios_are_numbers_with_commas() -> None:
    options = parser(None).parse_args(["--proved", "run", "--compression", "1,10, 2.5"])
    assert (options.compression, options.proved) == ({1.0, 10.0, 2.5}, Path("run"))
    with pytest.raises(UserError, match=r"Compression 'ten' is refused; write ratios, e.g. 1,10,100"):
        parser(None).parse_args(["--compression", "ten"])
