"""Kernels that were compiled from other sources are never used."""

from __future__ import annotations

from pathlib import Path

import numba

from verifiers.sparse import cache, kernels


def test_any_change_of_what_is_compiled_has_its_folder(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "kernels.py").write_text("import numba\nfrom verifiers.sparse.network import ERROR\n")
    (package / "network.py").write_text("ERROR = 1\n")
    (package / "search.py").write_text("PATIENCE = 1\n")
    first = cache.folder(package, "")
    assert first.is_relative_to(package / "__pycache__")
    assert cache.folder(package, "") == first
    found = {first}
    for name in ("kernels", "network"):
        before = (package / f"{name}.py").read_text()
        (package / f"{name}.py").write_text(before + "SLACK = 2\n")
        found.add(cache.folder(package, ""))
        (package / f"{name}.py").write_text(before)
    assert len(found) == 3
    # Nothing of this is compiled.
    (package / "search.py").write_text("PATIENCE = 2\n")
    assert cache.folder(package, "") == first
    given = cache.folder(package, str(tmp_path / "given"))
    assert given.parent == tmp_path / "given"
    # A process that inherits the choice makes it again.
    assert cache.folder(package, str(given)) == given


def test_kernels_are_in_the_folder_of_their_sources() -> None:
    wanted = cache.folder(Path(cache.__file__).parent, "").name
    assert wanted in numba.config.CACHE_DIR
    assert wanted in kernels.reference.stats.cache_path
