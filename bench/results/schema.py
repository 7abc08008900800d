"""The tables of `results/README.md` that say what each field is, made of the types that hold the files to it.

``python -m bench.results.schema`` writes them into the document; a test sees to it that it was done.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from prunecert.bench.results.baseline_types import Baseline
from prunecert.bench.results.row_types import KINDS
from prunecert.bench.results.summary_types import Summary
from prunecert.errors import EXIT_OK, UserError, run_main
from prunecert.files import write_text
from prunecert.page_help import PageHelp

DOCUMENT = Path(__file__).resolve().parents[2] / "results" / "README.md"
BEGIN, END = (
    "<!-- made by python -m bench.results.schema: begin -->",
    "<!-- made by python -m bench.results.schema: end -->",
)
_ITEM = re.compile(r"^    ([a-z][a-z0-9_]*): (.*)$")


def descriptions(kind: type) -> dict[str, str]:
    """Returns what a class's docstring, and those of its bases, say of the fields."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, begin, text = inspect.cleandoc(base.__doc__ or "").partition("\nArgs:\n")
        name = ""
        for line in text.splitlines() if begin else ():
            match = _ITEM.match(line)
            if match:
                name, texts[match[1]] = match[1], match[2]
            elif name and line.startswith("     "):
                texts[name] += f" {line.strip()}"
            else:
                name = ""
    return texts


def _words(kind: msgspec.inspect.Type, structs: dict[str, type[Struct]]) -> str:
    """Returns a type in words; structs in it are added to `structs`."""
    match kind:
        case msgspec.inspect.Metadata(type=inner):
            return _words(inner, structs)
        case msgspec.inspect.UnionType(types=types):
            return " or ".join(word for one in types if (word := _words(one, structs)))
        case msgspec.inspect.StructType(cls=cls):
            structs[cls.__name__] = cls
            return f"[{cls.__name__}](#{cls.__name__.lower()})"
        case msgspec.inspect.ListType(item_type=item) | msgspec.inspect.VarTupleType(item_type=item):
            return f"list of {_words(item, structs)}"
        case msgspec.inspect.TupleType(item_types=items):
            return f"[{', '.join(_words(item, structs) for item in items)}]"
        case msgspec.inspect.DictType(value_type=value):
            return f"object of {_words(value, structs)}"
        case msgspec.inspect.EnumType(cls=cls):
            return ", ".join(f"`{member.value}`" for member in cls)
        case msgspec.inspect.LiteralType(values=values):
            return " or ".join(map(str, values))
    name = type(kind).__name__
    plain = {"IntType": "whole number", "FloatType": "number", "StrType": "text", "BoolType": "true or false"}
    return {**plain, "NoneType": "null", "UnsetType": "", "AnyType": "anything"}[name]


def _table(kind: type[Struct], structs: dict[str, type[Struct]]) -> Iterator[str]:
    described = descriptions(kind)
    yield from ("| field | type | |", "|---|---|---|")
    info: Any = msgspec.inspect.type_info(kind)
    for item in info.fields:
        words = _words(item.type, structs) + ("" if item.required else "; may be missing")
        yield f"| `{item.name}` | {words} | {described.get(item.name, '')} |".replace("  |", " |")


def _section(kind: type[Struct], title: str, structs: dict[str, type[Struct]]) -> Iterator[str]:
    first = inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    yield from (title, "", first, "", *_table(kind, structs), "")


def render() -> str:
    """Returns all sections: a kind of row each, the files, and then the objects within them."""
    structs: dict[str, type[Struct]] = {}
    lines: list[str] = []
    for kind in KINDS:
        tag = kind.__struct_config__.tag
        lines += _section(kind, f"### `{tag}` – {kind.__name__}", structs)
    lines += _section(Summary, "### `summary.json` – Summary", structs)
    lines += _section(Baseline, "### `baselines/<name>.json` – Baseline", structs)
    described: set[str] = set()
    while left := [name for name in structs if name not in described]:
        described.add(left[0])
        lines += _section(structs[left[0]], f"#### {left[0]}", structs)
    return "\n".join(lines)


def between_marks(text: str, begin: str, end: str, content: str) -> str:
    """Returns a document with other content between two marks.

    Raises:
        UserError: It lacks one of the marks.
    """
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise UserError(f"The document is refused because it lacks the marks {begin} and {end}; put them back.")
    return f"{before}{begin}\n\n{content}\n{end}{after}"


def updated(text: str) -> str:
    """Returns the document with the tables as they are to be.

    Raises:
        UserError: It lacks the marks between which they stand.
    """
    return between_marks(text, BEGIN, END, render())


def write_document(
    argv: Sequence[str] | None, prog: str, description: str | None, document: Path, update: Callable[[str], str]
) -> int:
    """Runs a command that brings the generated part of a document up to date.

    Args:
        argv: Options; None for the process's.
        prog: How the command is called.
        description: What its help says of it.
        document: The document, unless ``--document`` names another.
        update: Returns the document's text as it is to be.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, formatter_class=PageHelp)
    parser.add_argument(
        "--document", type=Path, default=document, help=f"default: {document.parent.name}/{document.name}"
    )
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    write_text(options.document, update(options.document.read_text(encoding="utf-8")))
    return EXIT_OK


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return write_document(argv, "python -m bench.results.schema", __doc__, DOCUMENT, updated)


if __name__ == "__main__":
    run_main(main)
