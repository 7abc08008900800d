"""The taxonomy of the Adversarial Pruning benchmark (Piras et al. 2024, arXiv 2409.01249), as its JSON has it.

It is a list of methods, each with the keys of one of three pipelines: pruning after training (A), before it (B), during
it (D). `our_methods` says in it what the pruners here are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunecert.errors import UserError
from prunecert.jsontext import read_json
from prunecert.models.pruners.taxonomy import Schedule, Structure, Training, taxonomy_of

_MOST_BYTES = 1 << 22
#: Keys of a method in the benchmark's file, by our field; its colons and blanks are as they stand there.
_SHARED = {
    "link": "link_to_paper",
    "key": "ap_key",
    "structure": "Pruning structure",
    "locality": "Pruning locality",
    "criterion": "Pruning criterion",
}
_PIPELINE = "Type of Pipeline:"
_PIPELINES = {
    "A": (
        "A-Methods Pruning After Training",
        {
            "pretraining": "A: Pretraining ",
            "finetuning": "A: Finetuning",
            "schedule": "A: OneShot (1S) vs Iterative (IT)",
        },
    ),
    "B": (
        "B-Methods Pruning Before Training",
        {
            "pretraining": "B: Pruning step ",
            "finetuning": "B: Training step ",
            "schedule": "B: OneShot (1S) vs Iterative (IT)",
        },
    ),
    "D": ("D-Methods Pruning During Training", {"finetuning": "D: Training step "}),
}
#: Where it is said what our methods are.
_OURS = "docs/methods.md of PruneCert"
_WORDS = {"AT": "Adversarial Training (AT)", "NT": "Natural Training (NT)", "none": "none"}


@dataclass(frozen=True)
class ApMethod:
    """A method of the benchmark's taxonomy, in its words.

    Args:
        key: Method and authors, e.g. ``HARP_Zhao2023Holistic``.
        link: To the paper.
        pipeline: ``A``, ``B`` or ``D``: pruned after, before or during training.
        pretraining: Training before pruning; for B the step that finds the mask; empty for D.
        finetuning: Training after pruning; for B and D the training.
        schedule: ``1S`` or ``IT``; empty for D.
        structure: What goes: ``Unstructured (US)``, ``Structured (S) filters``, or both.
        locality: Over what weights compete.
        criterion: By what they are judged.
    """

    key: str
    link: str
    pipeline: str
    pretraining: str
    finetuning: str
    schedule: str
    structure: str
    locality: str
    criterion: str


def read_taxonomy(path: Path) -> list[ApMethod]:
    """Reads the benchmark's taxonomy.

    Raises:
        UserError: It is no JSON list of methods, or one lacks a key of its pipeline or has another one.
    """
    try:
        data = read_json(path, _MOST_BYTES)
    except (UserError, ValueError) as error:
        raise UserError(
            f"The taxonomy {str(path)!r} cannot be read ({error}); it must be the benchmark's JSON."
        ) from error
    if not isinstance(data, list):
        raise UserError(f"The taxonomy {str(path)!r} is refused: it must be a list of methods.")
    return [_method(item, f"{path.name}, method {number}") for number, item in enumerate(data, 1)]


def _method(item: Any, where: str) -> ApMethod:
    kinds = {words: (letter, keys) for letter, (words, keys) in _PIPELINES.items()}
    kind = item.get(_PIPELINE) if isinstance(item, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"{where} is refused: {_PIPELINE!r} must be one of: {'; '.join(kinds)}.")
    letter, own = kinds[kind]
    keys = {**_SHARED, **own}
    if item.keys() != {_PIPELINE, *keys.values()} or not all(isinstance(value, str) for value in item.values()):
        different = sorted(item.keys() ^ {_PIPELINE, *keys.values()})
        raise UserError(
            f"{where} is refused: of a pipeline {letter} it must have texts by the keys of that; see {different}."
        )
    fields = dict.fromkeys(("pretraining", "schedule"), "")
    return ApMethod(pipeline=letter, **{**fields, **{field: item[key] for field, key in keys.items()}})


def taxonomy_json(methods: Sequence[ApMethod]) -> list[dict[str, str]]:
    """Returns methods as the benchmark's file has them; `read_taxonomy` reads them back."""
    items = []
    for method in methods:
        words, own = _PIPELINES[method.pipeline]
        fields = {key: str(getattr(method, field)) for field, key in own.items()}
        shared = {key: str(getattr(method, field)) for field, key in _SHARED.items()}
        head = {key: shared.pop(key) for key in (_SHARED["link"], _SHARED["key"])}
        items.append({**head, _PIPELINE: words, **fields, **shared})
    return items


def our_methods(pruners: Iterable[str]) -> list[ApMethod]:
    """Returns what pruners are in the benchmark's words; those of which nobody has said it are left out.

    The cell's objective is given as adversarial training, which is what the benchmark calls all robust training.

    >>> [(method.key, method.pipeline, method.schedule) for method in our_methods(["hydra", "boosting", "drop-grow"])]
    [('hydra', 'A', '1S'), ('boosting', 'B', '1S'), ('drop-grow', 'D', '')]

    Args:
        pruners: Their names.
    """
    methods = []
    for name in pruners:
        place = taxonomy_of(name)
        if place is None:
            continue
        during = place.schedule is Schedule.DURING
        pipeline = "D" if during else "B" if place.pre_training is Training.NONE else "A"
        structured = place.structure is Structure.STRUCTURED
        methods.append(
            ApMethod(
                key=name,
                link=_OURS,
                pipeline=pipeline,
                pretraining="" if during else _in_words(place.code("pre_training")),
                finetuning=_in_words(place.code("fine_tuning")),
                schedule="" if during else place.code("schedule"),
                structure="Structured (S) filters" if structured else "Unstructured (US)",
                locality=f"{place.scope.value.capitalize()} ({place.code('scope')})",
                criterion=place.code("criterion"),
            )
        )
    return methods


def _in_words(code: str) -> str:
    return ", ".join(_WORDS.get(part, part) for part in code.split(", "))
