"""Keeps compiled kernels apart by the sources that they were compiled from, and where nobody else can write.

Numba compiles anew when the file of a function changes, but not when that of a function or an intrinsic which it calls
does. An old kernel that calls an old rounding rule would go on giving its bounds, so every state of the sources
that kernels are made of has a folder of its own.

What Numba keeps are pickles and machine code: who can write there runs code as whoever reads it. So a folder is used
only if it, all that lies in it and every folder on the way belong to this user or to root, and nobody else can write to
them (but for folders with the sticky bit on the way, in which others can't rename what is not theirs). The first of
these that is so is taken: NUMBA_CACHE_DIR; the package's `__pycache__`; `prunecert` in the user's cache folder
(XDG_CACHE_HOME or ~/.cache). Where none is, kernels are compiled for this process alone, in a folder that is new,
private and removed at the end, and a sentence says so.

Compiling all kernels takes a minute or more, once for each state of the sources on a machine. `pending` says beforehand
that it is due, from marks beside the kernels that `compiling` leaves, and without importing Numba; so the caller can
tell whoever waits, and start no clock before it is done. Of several processes one compiles and the others load what it
kept.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal

_VARIABLE = "NUMBA_CACHE_DIR"
_PREFIX = "sparse-"
_PACKAGE = ("prunecert", "verifiers", "sparse")
#: Which kernels: those of bounds, or those of the search, which are all of them.
Part = Literal["bounds", "search"]
#: Processor seconds of compiling, roughly.
_SECONDS: Mapping[Part, int] = {"bounds": 40, "search": 80}
_LOCK = "compiling.lock"
#: As much of it as describes one processor.
_CPU_TEXT = 8_192
#: An import statement: source and names, or modules. What looks like one in a text does no harm.
_IMPORT = re.compile(r"^[ \t]*(?:from\s+(\S+)\s+import\s+(\([^)]*\)|[^\n]*)|import\s+([^\n]*))", re.MULTILINE)


def key(package: Path) -> str:
    """Returns a hash of all sources, in subfolders too, that kernels are compiled from.

    Args:
        package: The folder of the sources.
    """
    digest = hashlib.sha256()
    for name, text in _sources(package):
        digest.update("/".join(name).encode() + b"\0" + text + b"\0")
    return digest.hexdigest()[:16]


def _sources(package: Path) -> list[tuple[tuple[str, ...], bytes]]:
    """Returns names and texts of the modules that speak of Numba or llvmlite, and those that they import, and so on.

    Constants of the latter are compiled, too. This package is read once: its folder of kernels is chosen with it.
    """
    return _read_once(package) if package == _own() else _read_sources(package)


def _own() -> Path:
    return Path(__file__).parent


@functools.cache
def _read_once(package: Path) -> list[tuple[tuple[str, ...], bytes]]:
    return _read_sources(package)


def _read_sources(package: Path) -> list[tuple[tuple[str, ...], bytes]]:
    texts: dict[tuple[str, ...], bytes] = {}
    for place, folders, files in os.walk(package, onerror=_raised):
        # All kernels that were ever kept lie in the outermost of these.
        folders[:] = [folder for folder in folders if folder != "__pycache__"]
        for source in (Path(place, file) for file in files if file.endswith(".py")):
            texts[source.relative_to(package).with_suffix("").parts] = source.read_bytes()
    todo = [name for name, text in texts.items() if b"numba" in text or b"llvmlite" in text]
    sources: set[tuple[str, ...]] = set()
    while todo:
        name = todo.pop()
        if name not in sources:
            sources.add(name)
            todo += [other for other in _imported(name, texts[name]) if other in texts]
    return [(name, texts[name]) for name in sorted(sources)]


def _raised(error: OSError) -> None:
    """A folder that can't be read isn't one without sources."""
    raise error


def _imported(name: tuple[str, ...], text: bytes) -> Iterator[tuple[str, ...]]:
    """Yields what a module imports from this package, as parts of file names, and what may be such."""
    for statement in _IMPORT.finditer(text.decode(errors="replace")):
        source, names, plain = statement.groups()
        if source is None:
            dotted = [tuple(word.split(".")) for word in re.findall(r"[\w.]+", plain)]
        else:
            level = len(source) - len(source.lstrip("."))
            base = tuple(filter(None, source[level:].split(".")))
            if level:
                base = (*_PACKAGE, *name[: max(len(name) - level, 0)], *base)
            # A name may be a module or something in one.
            dotted = [base, *((*base, word) for word in re.findall(r"\w+", names))]
        for parts in dotted:
            if parts[: len(_PACKAGE)] == _PACKAGE:
                yield parts[len(_PACKAGE) :]
                yield (*parts[len(_PACKAGE) :], "__init__")


def flaw(folder: Path) -> str | None:
    """Says why compiled kernels must not be read from a folder, or None.

    Args:
        folder: It need not exist.
    """
    path = folder.expanduser().absolute()
    try:
        real = path.resolve()
        for place in (real, *real.parents):
            if place.exists() and (reason := _open_to_others(place, passing=place != real)) is not None:
                return reason
        for place in real.rglob("*") if real.is_dir() else ():
            if (reason := _open_to_others(place)) is not None:
                return reason
    except (OSError, RuntimeError) as error:
        return f"{path} can't be looked at ({error})"
    return None


def _open_to_others(place: Path, passing: bool = False) -> str | None:
    """Says why others could write to a place; `passing` if it is only on the way."""
    status = place.lstat()
    if status.st_uid not in (0, os.geteuid()):
        return f"{place} belongs to the user {status.st_uid}"
    if stat.S_ISLNK(status.st_mode) or not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        return f"{place} is neither a folder nor a file"
    sticky = passing and bool(status.st_mode & stat.S_ISVTX)
    others = bool(status.st_mode & stat.S_IWOTH)
    # Where each user has a group of their own, files are writable by it by default.
    group = bool(status.st_mode & stat.S_IWGRP) and not _own_group(status.st_gid)
    if (others or group) and not sticky:
        return f"{place} can be written by {'others' if others else f'the group {status.st_gid}'}"
    return None


def _own_group(gid: int) -> bool:
    """Whether a group has no member but this user, by its name and its list of members."""
    import grp
    import pwd

    try:
        name, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == name and set(group.gr_mem) <= {name}


def folder(package: Path, environment: Mapping[str, str]) -> tuple[Path | None, list[str]]:
    """Returns where compiled kernels are kept, and what was refused.

    Args:
        package: The folder of the sources.
        environment: With NUMBA_CACHE_DIR, the folder to keep them in, or one that this function has chosen in it;
            XDG_CACHE_HOME; HOME.

    Returns:
        A folder that only this user can write to, made where it didn't exist; None if there is none. And a sentence for
        each place that was refused.
    """
    bases = []
    if preferred := environment.get(_VARIABLE, ""):
        base = Path(preferred)
        bases.append(base.parent if base.name.startswith(_PREFIX) else base)
    if os.access(package, os.W_OK):
        bases.append(package / "__pycache__")
    if home := environment.get("XDG_CACHE_HOME") or (environment.get("HOME") and f"{environment['HOME']}/.cache"):
        bases.append(Path(home) / "prunecert")
    name = _PREFIX + key(package)
    refused: list[str] = []
    for base in bases:
        chosen = base / name
        if (reason := flaw(chosen)) is None:
            try:
                chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Again, as it may have come into being between.
                reason = flaw(chosen)
            except OSError as error:
                reason = f"{chosen} can't be made ({error.strerror})"
        if reason is None and os.access(chosen, os.W_OK | os.X_OK):
            return chosen, refused
        refused.append(f"Compiled kernels are not kept in {base}: {reason or 'it is not writable'}.")
    return None, refused


def separate() -> None:
    """Has Numba, whether it is imported yet or not, keep the kernels that are declared from now on in their folder."""
    chosen, refused = folder(_own(), os.environ)
    if chosen is None:
        chosen = Path(tempfile.mkdtemp(prefix="prunecert-")) / f"{_PREFIX}{key(_own())}"
        chosen.mkdir(mode=0o700)
        atexit.register(shutil.rmtree, chosen.parent, ignore_errors=True)
        refused.append("They are compiled anew for this process, which takes a minute.")
    if refused:
        print("\n".join(refused), file=sys.stderr)
    os.environ[_VARIABLE] = str(chosen)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(chosen)


def pending(part: Part) -> str:
    """Says that kernels will be compiled when they are first used, and how long about; empty if they are kept.

    Args:
        part: Which kernels are to be used.
    """
    place = _mark(part)
    if place is not None and place.exists():
        return ""
    return f"compiling kernels, once for this machine: about {_SECONDS[part]} s of a free core"


@contextlib.contextmanager
def compiling(part: Part) -> Iterator[None]:
    """Has one process at a time compile, and marks that it is done; does nothing where kernels are kept already.

    Args:
        part: The kernels that are compiled within.
    """
    place = _mark(part)
    if place is None or place.exists():
        yield
        return
    with contextlib.ExitStack() as stack:
        # What can't be locked, on some network drives, is compiled by each.
        with contextlib.suppress(OSError):
            descriptor = os.open(place.with_name(_LOCK), os.O_CREAT | os.O_RDWR, 0o600)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        with contextlib.suppress(OSError):
            # All kernels are the bounds' as well.
            for kept in {part, "bounds"}:
                os.close(os.open(place.with_name(place.name.replace(part, kept, 1)), os.O_CREAT | os.O_WRONLY, 0o600))


def _mark(part: Part) -> Path | None:
    """Returns the file that says that a part's kernels are kept; None where they are for one process alone."""
    chosen, _ = folder(_own(), os.environ)
    return None if chosen is None else chosen / f"{part}-{_build(_own())}.compiled"


def _build(package: Path) -> str:
    """Returns a hash of what Numba looks at before it takes a kept kernel: its own version, processor, files, times."""
    files = [package.joinpath(*name).with_suffix(".py") for name, _ in _sources(package)]
    stamps = [(str(file), *_stamp(file)) for file in files]
    chosen = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_CPU"))
    facts = [sys.version, version("numba"), version("llvmlite"), _processor(), stamps, chosen]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _stamp(file: Path) -> tuple[int, int]:
    """Returns a file's time and size; zeros for one that is gone meanwhile."""
    try:
        facts = file.stat()
    except FileNotFoundError:
        return 0, 0
    return facts.st_mtime_ns, facts.st_size


def _processor() -> str:
    """Returns what tells this kind of processor from others."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            text = file.read(_CPU_TEXT)
    except OSError:
        return platform.processor()
    return "".join(sorted(set(re.findall(r"^(?:model name|flags|Features)\s*:.*$", text, re.MULTILINE))))
