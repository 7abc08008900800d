"""The documentation: a site without a broken link, pages whose programs run, and notebooks that do."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import prunecert
from tests import house

DOCS = house.ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))


def lacks(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (extras docs and notebooks)")


@pytest.mark.slow
@lacks("mkdocs", "material", "mkdocstrings")
def test_the_site_is_built_without_a_broken_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    build = subprocess.run(command, cwd=house.ROOT, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    pages = {path.name: path.read_text() for path in (tmp_path / "site").glob("*.html")}
    assert {f"{page.stem}.html" for page in DOCS.glob("*.md")} <= set(pages)
    for page, text in pages.items():
        for target, anchor in re.findall(r'href="([\w./-]*?)(?:#([^"]*))?"', text):
            if not target or target.startswith((".", "/", "http")) or not target.endswith(".html"):
                continue
            assert target in pages, f"{page}: {target}"
            assert not anchor or f'id="{anchor}"' in pages[target], f"{page}: {target}#{anchor}"
    # Made from the program's own types.
    assert "pretrain_epochs" in pages["suites.html"]
    for name in ("verify", "evaluate", "export", "load_run"):
        assert f".{name}" in pages["python.html"], name


def programs(page: Path) -> list[str]:
    """Returns a page's Python blocks, but for those that are a file of somebody's."""
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.M | re.S)
    return [block for block in blocks if not block.startswith("# ")]


@pytest.mark.slow
def test_the_programs_of_own_network_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for program in programs(DOCS / "own-network.md"):
        exec(compile(program, "own-network.md", "exec"), names)
    assert isinstance(names["result"], prunecert.Evaluation)
    assert (tmp_path / "pruned.onnx").is_file()
    prunecert.close()


def test_the_suites_of_the_pages_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    from prunecert.models.datasets.source import load_split, source_of

    (function,) = re.findall(r"^```python\n(# mydata.*?)^```", (DOCS / "own-data.md").read_text(), flags=re.M | re.S)
    (tmp_path / "mydata.py").write_text(function)
    monkeypatch.syspath_prepend(tmp_path)
    blocks = re.findall(r"^```yaml\n(.*?)^```", (DOCS / "own-data.md").read_text(), flags=re.M | re.S)
    sources = [source_of(yaml.safe_load(block)["data"]) for block in blocks]
    assert [source.reader for source in sources] == ["npz", "folder", "mydata:read"]
    assert len(load_split(sources[-1], "train")) == 360


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert not [cell for cell in notebook["cells"] if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
@lacks("nbclient", "nbformat", "ipykernel", "pandas", "sklearn")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    # Typed or not, as the version is.
    nbformat: Any = importlib.import_module("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(house.ROOT))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert len(NOTEBOOKS) == 2
