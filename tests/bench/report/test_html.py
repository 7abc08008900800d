from __future__ import annotations

import re
from pathlib import Path

from prunecert.bench.report import html
from tests.bench.summarykit import NASTY, pruned


def test_the_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    page = html.render(pruned())
    assert NASTY not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!\#)[^"']+""", page)
    assert not re.findall(r"url\(\s*['\"]?(?!#)[a-z]", page)
    assert "@import" not in page
    assert page.count("<svg ") == 3
    assert "currentColor" in page
    # It opens with a finding and the figure of what is kept, before any table.
    assert page.index("<p><strong>Pruned to") < page.index("Verified accuracy kept") < page.index("<table>")
    assert "#010203" not in page
    assert "python -m bench.train --cells later" in page
    assert "NOT PUBLISHABLE" not in page
