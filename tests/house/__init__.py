"""The house as imports draw it: modules, the arrows between them, and where each module's own tests are.

`python -m tests.house` shows it and writes the files that the rules of `tests/test_house.py` are held against.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Folders of the checkout, and the package that each is installed as.
PACKAGES = {"bench": "prunecert.bench", "models": "prunecert.models", "verifiers": "prunecert.verifiers"}

Arrow = tuple[str, str]


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Returns all modules that are installed, by their dotted names; packages go by their `__init__.py`.

    Args:
        root: A checkout, of any age.
    """
    folders = {root / folder: package for folder, package in PACKAGES.items()} | {root / "prunecert": "prunecert"}
    sources: dict[str, Path] = {}
    for folder, package in folders.items():
        for source in sorted(folder.rglob("*.py")):
            parts = source.relative_to(folder).with_suffix("").parts
            # Links to the other folders lie in prunecert/; whether they are followed depends on Python's version.
            if package != "prunecert" or parts[0] not in PACKAGES:
                sources[".".join((package, *(part for part in parts if part != "__init__")))] = source
    return sources


def arrows(root: Path = ROOT) -> frozenset[Arrow]:
    """Returns all pairs (importer, imported) of modules, imports within functions included.

    Args:
        root: A checkout, of any age.
    """
    return _arrows(root.resolve())


@functools.cache
def _arrows(root: Path) -> frozenset[Arrow]:
    sources = modules(root)
    return frozenset(
        (name, target)
        for name, source in sources.items()
        for target in _imports(ast.parse(source.read_bytes()), sources)
        if target != name
    )


def _imports(tree: ast.Module, names: Collection[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name for alias in node.names if (name := _installed(alias.name)) in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = _installed(node.module)
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                if inner in names or module in names:
                    yield inner if inner in names else module


def _installed(name: str) -> str:
    """Returns a module's name as it is installed; until version 0.2 the folders were packages of their own."""
    return f"prunecert.{name}" if name.partition(".")[0] in PACKAGES else name


def rooms(pairs: Collection[Arrow]) -> set[Arrow]:
    """Returns the arrows between rooms of one folder: of two modules, the parts where their names fork.

    A package's own `__init__` is no room of its folder: it may name what lies within.
    """
    forks: set[Arrow] = set()
    for importer, imported in pairs:
        one, other = importer.split("."), imported.split(".")
        depth = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        if depth is not None:
            forks.add((".".join(one[: depth + 1]), ".".join(other[: depth + 1])))
    return forks


def circles(pairs: Collection[Arrow]) -> set[frozenset[str]]:
    """Returns the sets of two or more rooms that can all be reached from one another."""
    targets: dict[str, set[str]] = {}
    for one, other in pairs:
        targets.setdefault(one, set()).add(other)
        targets.setdefault(other, set())
    reachable: dict[str, set[str]] = {}
    for start in targets:
        stack, reach = [start], set[str]()
        while stack:
            for target in targets[stack.pop()] - reach:
                reach.add(target)
                stack.append(target)
        reachable[start] = reach
    return {
        frozenset(other for other in reachable[start] if start in reachable[other])
        for start in targets
        if start in reachable[start]
    }


def own_tests(module: str) -> list[Path]:
    """Returns where a module's own tests may be: a file of its name in its folder of tests, or one of its folder's.

    The latter is for families of small modules with one contract: tests/models/test_pruners.py has all pruners.
    """
    *folders, name = module.removeprefix("prunecert.").split(".")
    if folders[:1] not in (["bench"], ["models"], ["verifiers"]):
        folders = ["prunecert", *folders]
    own = ROOT.joinpath("tests", *folders, f"test_{name.strip('_')}.py")
    return [own, own.parent.with_name(f"test_{folders[-1]}.py")]


def without_own_tests() -> list[str]:
    """Returns the modules that have no tests of their own; an `__init__`'s content is tested with its parts."""
    return sorted(
        module
        for module, source in modules().items()
        if source.name != "__init__.py" and not any(path.is_file() for path in own_tests(module))
    )
