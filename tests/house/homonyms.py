"""Public classes that bear one name in several modules: a reader of one takes it for the other.

Run as a program, it prints them with where they are.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from tests import house

_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)
#: Why a name stands more than once; an entry goes when its reason does.
REASONS: Mapping[str, str] = {
    "Answer": "the protocol of what `outcome.settle` takes, and the row of a summary that fulfils it",
    "Batch": "of questions, of training images, of subdomains: each the batch of its field",
    "Boxes": "those of input splits, and of a walk over a ball",
    "Case": "the checker shares no name's code with what it judges; both are VNN-LIB's case",
    "Constant": "what a quantised file holds, and what is added to a sum of terms",
    "Earlier": "what earlier runs left, and what earlier searches left",
    "Engine": "what an adapter runs in its process, one each; and the bound engine, which needs no other word",
    "Grid": "of networks on a page, and of numbers that a quantised tensor may have",
    "Intervals": "differentiable ones of training, in which nothing is certified, and exact ones of integers",
    "Network": "the checker and the enclosure of float32 share no code with the engine that they judge",
    "Node": "the checker's, the engine's affine node, and ONNX's in normal form",
    "Outcome": "of an image, and of a search",
    "Region": "a checker's, which shares no code with the engine; and the bounds of all nodes of a network with curves",
    "Rounding": "of activations that are quantised, and of constants that are folded",
    "Slopes": "of a walk over a ball, and those that a certificate writes down",
    "Stage": "as planned, as the protocol of what `outcome.settle` takes, and of training",
    "Step": "of a pruner, and the distance of two numbers of a quantised tensor",
    "Task": "a line of VNN-COMP's list, and a search's question",
    "Term": "a summand of an affine node, and of a value that ONNX nodes rearrange",
    "Tree": "as the checker reads it, and as the search leaves it",
    "UnreadableError": "the checker and the enclosure of float32 share no code with what they judge",
    "Walk": "as a certificate writes it down, and one through curves",
}


def homonyms(sources: Mapping[str, Path] | None = None) -> dict[str, list[str]]:
    """Returns the modules of each public class name that more than one of them defines.

    Args:
        sources: Modules by their dotted names; by default all that are installed.
    """
    texts = {
        module: source.read_text(encoding="utf-8")
        for module, source in (house.modules() if sources is None else sources).items()
    }
    # Most names stand once, which is seen sooner than all modules are parsed.
    names = {module: set(_CLASS.findall(text)) for module, text in texts.items()}
    counts = Counter(name for classes in names.values() for name in classes)
    places: dict[str, list[str]] = defaultdict(list)
    for module, text in texts.items():
        if any(counts[name] > 1 for name in names[module]):
            for node in ast.parse(text).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(module)
    return {name: modules for name, modules in sorted(places.items()) if len(modules) > 1}


if __name__ == "__main__":
    for name, modules in homonyms().items():
        print(f"{name}: {', '.join(modules)}")
