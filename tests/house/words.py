"""Words: a variable bears its type's noun; past participles are for what is true or false."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.house import ROOT

#: Names that say nothing of what they hold. `kept` and `left` aren't among them: pruning keeps, and there is a right.
BARE = frozenset({"asked", "done", "found", "given", "got", "known", "made", "seen", "taken", "told", "wanted"})
#: What may bind one of them: such a word before an assignment, the end of a parameter or a pattern, or a loop's `in`.
_BINDING = re.compile(rf"\b(?:{'|'.join(sorted(BARE))})\b\s*(?:[-+*/|&^@%<>:]*=|[,:)\]]|in\b|if\b)")
_FOLDERS = ("bench", "models", "prunecert", "tests", "verifiers")
_TRUTH = re.compile(r"\bbool|Bool")
_QUESTIONS = frozenset({"all", "any", "bool", "callable", "hasattr", "isinstance", "issubclass"})


def bare_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yields each variable, parameter, field and loop's target with such a name, and its line, unless it is boolean.

    Boolean is what is annotated so, or what is bound to a truth value in plain sight (``done = not rows``).
    """
    nodes = list(ast.walk(tree))
    bare = [(node, name) for node in nodes if (name := _bound(node)) in BARE]
    truths = {id(target) for node in nodes for target in _truths(node)} if bare else set()
    yield from ((name, getattr(node, "lineno", 0)) for node, name in bare if id(node) not in truths)


def _truths(node: ast.AST) -> list[ast.AST]:
    """Returns what a node binds to truth values."""
    match node:
        case ast.AnnAssign(target=target, annotation=annotation) if _TRUTH.search(ast.unparse(annotation)):
            return [target]
        case ast.arg(annotation=ast.expr() as annotation) if _TRUTH.search(ast.unparse(annotation)):
            return [node]
        case ast.Assign(targets=targets, value=value) if _is_truth(value):
            return [*targets]
        case ast.NamedExpr(target=target, value=value) if _is_truth(value):
            return [target]
        case ast.For(target=target, iter=ast.Tuple(elts=values) | ast.List(elts=values)) if all(map(_is_truth, values)):
            return [target]
    return []


def _bound(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return name
        case ast.arg(arg=name):
            return name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return name
    return ""


def _is_truth(value: ast.expr) -> bool:
    match value:
        case ast.Constant(value=bool()) | ast.Compare() | ast.UnaryOp(op=ast.Not()):
            return True
        case ast.BoolOp(values=parts):
            return all(map(_is_truth, parts))
        case ast.Call(func=ast.Name(id=name)):
            return name in _QUESTIONS
        case ast.Call(func=ast.Attribute(attr=name)):
            return name in ("all", "any", "HasField", "exists", "is_dir", "is_file", "startswith", "endswith")
    return False


def sources(root: Path = ROOT) -> list[Path]:
    """Returns all files of Python that are ours, tests included."""
    files = (source for folder in _FOLDERS for source in (root / folder).rglob("*.py"))
    # Links to the other folders lie in prunecert/; whether they are followed depends on Python's version.
    home = root.resolve()
    return sorted(source for source in files if source.resolve() == home / source.relative_to(root))


def places(files: Iterable[Path], root: Path = ROOT) -> list[str]:
    """Returns where such names are: ``folder/file.py:line: name``."""
    return [
        f"{source.relative_to(root)}:{line}: {name}"
        for source in files
        # Most files have none, which is seen sooner than they are parsed.
        if _BINDING.search(text := source.read_text(encoding="utf-8"))
        for name, line in sorted(bare_names(ast.parse(text)), key=lambda item: item[1])
    ]


def counts(root: Path = ROOT) -> dict[str, int]:
    """Returns how many such names each folder has, without those that have none."""
    return dict(sorted(Counter(place.rpartition("/")[0] for place in places(sources(root), root)).items()))
