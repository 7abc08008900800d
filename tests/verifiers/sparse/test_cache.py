"""Kernels that were compiled from other sources, or that another user may have written, are never used."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numba
import pytest

from prunecert.verifiers.sparse import cache
from prunecert.verifiers.sparse.crown import rounding

#: A user that is neither root nor whoever runs the tests.
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture(name="package")
def _package(tmp_path: Path) -> Path:
    """A package whose kernels stand in a subfolder, and take a constant from another by way of a third module."""
    package = tmp_path / "package"
    (package / "crown").mkdir(parents=True)
    (package / "kernels.py").write_text("import numba\nfrom prunecert.verifiers.sparse.network import ERROR\n")
    (package / "network.py").write_text("ERROR = 1\n")
    (package / "search.py").write_text("PATIENCE = 1\n")
    (package / "crown" / "__init__.py").write_text("")
    (package / "crown" / "walk.py").write_text(
        "import numba\nfrom prunecert.verifiers.sparse.crown import (\n    rounding,\n)\nfrom .steps import STEP\n"
    )
    (package / "crown" / "rounding.py").write_text("from prunecert.verifiers.sparse.crown.units import UNIT\n")
    (package / "crown" / "units.py").write_text("UNIT = 1\n")
    (package / "crown" / "steps.py").write_text("STEP = 1\n")
    (package / "crown" / "report.py").write_text("WIDTH = 1\n")
    return package


@pytest.fixture(name="own")
def _own(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has that package be the one whose kernels are kept, in a folder of its own."""
    monkeypatch.setattr(cache, "__file__", str(package / "cache.py"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))


def test_any_change_of_what_is_compiled_has_its_folder(package: Path) -> None:
    first = cache.key(package)
    assert cache.key(package) == first
    for source in ("kernels", "network", "crown/walk", "crown/rounding", "crown/units", "crown/steps"):
        path = package / f"{source}.py"
        before = path.read_text()
        path.write_text(before + "SLACK = 2\n")
        assert cache.key(package) != first, source
        path.write_text(before)
    # Nothing of this is compiled.
    for source in ("search", "crown/report"):
        (package / f"{source}.py").write_text("PATIENCE = 2\n")
    assert cache.key(package) == first


def test_what_is_kept_beside_the_sources_is_none_of_them(package: Path) -> None:
    first = cache.key(package)
    kept = package / "crown" / "__pycache__" / "sparse-0123456789abcdef"
    kept.mkdir(parents=True)
    (kept / "kernels.py").write_text("import numba\n")
    assert cache.key(package) == first


def test_a_folder_that_cannot_be_read_is_not_one_without_sources(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two states that differ there would share kernels."""
    scan = os.scandir

    def refused(place: str = ".") -> object:
        if str(place).endswith("crown"):
            raise OSError(errno.EMFILE, "too many open files")
        return scan(place)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(OSError, match="too many"):
        cache.key(package)


@pytest.mark.usefixtures("own")
def test_a_source_that_is_gone_means_other_kernels(package: Path) -> None:
    with cache.compiling("search"):
        pass
    assert not cache.pending("search")
    (package / "kernels.py").unlink()
    assert cache.pending("search")


def test_the_package_itself_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times a start, which took a twentieth of it."""
    own = cache.key(Path(cache.__file__).parent)
    with monkeypatch.context() as patch:
        patch.setattr(os, "walk", lambda *_, **__: pytest.fail("read again"))
        assert cache.key(Path(cache.__file__).parent) == own


def test_the_engines_own_constants_are_part_of_its_key(tmp_path: Path) -> None:
    """By the imports as they really stand: a package renamed without `cache` knowing would keep old kernels."""
    package = tmp_path / "sparse"
    shutil.copytree(Path(cache.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    first = cache.key(package)
    for source in (
        "network",
        "threads",
        "crown/rounding",
        "crown/units/intervals",
        "crown/scratch",
        "llvm/vectors",
        "bab/dual",
    ):
        path = package / f"{source}.py"
        before = path.read_text()
        path.write_text(before + "SLACK = 2\n")
        assert cache.key(package) != first, source
        path.write_text(before)
    (package / "proofs" / "store.py").write_text("PATIENCE = 2\n")
    assert cache.key(package) == first


def test_a_moved_kernel_has_another_folder(package: Path) -> None:
    first = cache.key(package)
    (package / "kernels.py").rename(package / "crown" / "kernels.py")
    assert cache.key(package) != first


def test_the_folder_is_private_and_chosen_again_by_a_child(package: Path, tmp_path: Path) -> None:
    beside, refused = cache.folder(package, {})
    assert not refused
    assert beside is not None
    assert beside.parent == package / "__pycache__"
    folder, refused = cache.folder(package, {"NUMBA_CACHE_DIR": str(tmp_path / "given")})
    assert not refused
    assert folder is not None
    assert folder.parent == tmp_path / "given"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache.folder(package, {"NUMBA_CACHE_DIR": str(folder)}) == (folder, [])


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o707])
def test_a_folder_that_others_can_write_to_is_refused(package: Path, tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    result, refused = cache.folder(package, {"NUMBA_CACHE_DIR": str(shared)})
    assert result is not None
    assert result.parent == package / "__pycache__"
    (sentence,) = refused
    assert str(shared) in sentence
    assert "can be written by others" in sentence
    assert not list(shared.iterdir())


def test_what_lies_in_it_is_looked_at_and_what_is_on_the_way(package: Path, tmp_path: Path) -> None:
    first, _ = cache.folder(package, {"NUMBA_CACHE_DIR": str(tmp_path / "way" / "cache")})
    assert first is not None
    kernel = first / "deep" / "kernel.nbi"
    kernel.parent.mkdir()
    kernel.write_bytes(b"")
    kernel.chmod(0o600)
    assert cache.flaw(first) is None
    kernel.chmod(0o666)
    assert "can be written by others" in (cache.flaw(first) or "")
    kernel.chmod(0o600)
    (first / "link").symlink_to(kernel)
    assert "neither a folder nor a file" in (cache.flaw(first) or "")
    (first / "link").unlink()
    (tmp_path / "way").chmod(0o777)
    assert str(tmp_path / "way") in (cache.flaw(first) or "")
    # In such a folder others can't rename it.
    (tmp_path / "way").chmod(0o1777)
    assert cache.flaw(first) is None


@pytest.mark.usefixtures("own")
def test_what_is_compiled_is_said_until_it_is_kept(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.pending("search").startswith("compiling kernels, once for this machine: about ")
    with pytest.raises(KeyboardInterrupt), cache.compiling("search"):
        raise KeyboardInterrupt
    assert cache.pending("search"), "what is interrupted isn't kept"
    with cache.compiling("bounds"):
        pass
    assert (cache.pending("bounds"), cache.pending("search") > "") == ("", True)
    with cache.compiling("search"):
        pass
    assert not cache.pending("search")
    # As Numba does: another time of the file, another processor.
    with monkeypatch.context() as other:
        other.setenv("NUMBA_CPU_NAME", "generic")
        assert cache.pending("search")
    os.utime(package / "crown" / "report.py", (1, 1))
    assert not cache.pending("search")
    os.utime(package / "kernels.py", (1, 1))
    assert cache.pending("search")
    assert cache.flaw(tmp_path / "kept") is None


@pytest.mark.usefixtures("own")
def test_all_kernels_are_those_of_bounds_as_well() -> None:
    with cache.compiling("search"):
        pass
    assert not cache.pending("bounds")


@pytest.mark.usefixtures("own")
def test_one_compiles_and_the_others_wait() -> None:
    started, events = threading.Event(), []

    def second() -> None:
        started.set()
        with cache.compiling("search"):
            events.append("second, with all that the first kept" if not cache.pending("search") else "second")

    thread = threading.Thread(target=second)
    with cache.compiling("search"):
        thread.start()
        started.wait()
        thread.join(0.1)
        events.append("first")
    thread.join()
    assert events == ["first", "second, with all that the first kept"]


@as_root
@pytest.mark.parametrize("mode", [0o777, 0o755, 0o700])
def test_another_users_folder_is_refused(package: Path, tmp_path: Path, mode: int) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    foreign.chmod(mode)
    os.chown(foreign, NOBODY, NOBODY)
    result, refused = cache.folder(package, {"NUMBA_CACHE_DIR": str(foreign)})
    assert result is not None
    assert result.parent == package / "__pycache__"
    assert f"belongs to the user {NOBODY}" in refused[0]


@as_root
def test_another_users_kernel_in_ones_own_folder_is_refused(package: Path) -> None:
    result, _ = cache.folder(package, {})
    assert result is not None
    (result / "kernel.nbc").write_bytes(b"")
    os.chown(result / "kernel.nbc", NOBODY, NOBODY)
    assert f"belongs to the user {NOBODY}" in (cache.flaw(result) or "")


@as_root
def test_a_package_of_another_user_leaves_the_users_cache_folder(package: Path, tmp_path: Path) -> None:
    os.chown(package, NOBODY, NOBODY)
    home = tmp_path / "home"
    result, _ = cache.folder(package, {"HOME": str(home)})
    assert result is not None
    assert result.parent == home / ".cache" / "prunecert"
    assert cache.folder(package, {"HOME": str(home), "XDG_CACHE_HOME": str(tmp_path / "xdg")})[0] == (
        tmp_path / "xdg" / "prunecert" / result.name
    )
    nothing, refused = cache.folder(package, {})
    assert nothing is None
    assert refused


@as_root
def test_without_a_cache_the_command_works_and_says_so(tmp_path: Path) -> None:
    """No folder can be trusted: a new one is made, and gone afterwards; nothing of the old one is read."""
    copy = tmp_path / "copy"
    source = Path(cache.__file__).parent
    package = copy / "prunecert" / "verifiers" / "sparse"
    package.mkdir(parents=True)
    for folder in (package.parent, package.parent.parent):
        (folder / "__init__.py").write_text("")
    for name in ("__init__.py", "cache.py"):
        (package / name).write_bytes((source / name).read_bytes())
    os.chown(package, NOBODY, NOBODY)
    temporary = tmp_path / "tmp"
    planted = temporary / f"prunecert-{os.geteuid()}"
    planted.mkdir(parents=True)
    os.chown(planted, NOBODY, NOBODY)
    run = subprocess.run(
        [sys.executable, "-c", "import os, prunecert.verifiers.sparse as s; print(os.environ['NUMBA_CACHE_DIR'])"],
        cwd=copy,
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(copy),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    chosen = Path(run.stdout.strip())
    assert chosen.parent.parent == temporary
    assert chosen.parent != planted
    assert not chosen.parent.exists()
    assert "compiled anew for this process" in run.stderr


def test_kernels_are_in_the_folder_of_their_sources() -> None:
    expected = cache.key(Path(cache.__file__).parent)
    assert expected in numba.config.CACHE_DIR
    assert expected in rounding.reference.stats.cache_path
