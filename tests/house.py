"""The house as imports draw it: modules, the arrows between them, and circles between rooms of one folder."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Folders of the checkout, and the package that each is installed as.
PACKAGES = {"bench": "prunecert.bench", "models": "prunecert.models", "verifiers": "prunecert.verifiers"}

Arrow = tuple[str, str]


def modules() -> dict[str, Path]:
    """Returns all modules that are installed, by their dotted names; packages go by their `__init__.py`."""
    folders = {ROOT / folder: package for folder, package in PACKAGES.items()} | {ROOT / "prunecert": "prunecert"}
    sources: dict[str, Path] = {}
    for folder, package in folders.items():
        for source in sorted(folder.rglob("*.py")):
            parts = source.relative_to(folder).with_suffix("").parts
            # Links to the other folders lie in prunecert/; whether they are followed depends on Python's version.
            if package != "prunecert" or parts[0] not in PACKAGES:
                sources[".".join((package, *(part for part in parts if part != "__init__")))] = source
    return sources


def arrows() -> set[Arrow]:
    """Returns all pairs (importer, imported) of modules, imports within functions included."""
    sources = modules()
    return {
        (name, target)
        for name, source in sources.items()
        for target in _imported(ast.parse(source.read_bytes()), sources)
        if target != name
    }


def _imported(tree: ast.Module, known: Collection[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


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
    reached: dict[str, set[str]] = {}
    for start in targets:
        todo, seen = [start], set[str]()
        while todo:
            for target in targets[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        reached[start] = seen
    return {
        frozenset(other for other in reached[start] if start in reached[other])
        for start in targets
        if start in reached[start]
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


def drawing(pairs: Collection[Arrow]) -> list[str]:
    """Returns a line a folder: how many rooms and arrows between them it has, and which circles."""
    lines = []
    forks = rooms(pairs)
    for folder in sorted({one.rpartition(".")[0] for one, _ in forks}):
        inner = {(one, other) for one, other in forks if one.rpartition(".")[0] == folder}
        loops = ["circle of " + ", ".join(sorted(loop)) for loop in circles(inner)] or ["no circle"]
        lines.append(f"{folder}: {len(set().union(*inner))} rooms, {len(inner)} arrows, {'; '.join(sorted(loops))}")
    return lines


if __name__ == "__main__":
    # python -m tests.house > tests/without_own_tests.txt; python -m tests.house rooms
    print("\n".join(drawing(arrows()) if sys.argv[1:] == ["rooms"] else without_own_tests()))
