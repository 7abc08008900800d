"""Where each pruner stands: the taxonomy of the Adversarial Pruning benchmark (Piras et al., arXiv 2409.01249).

It is data, so that a page can sort methods by it without importing one of them. Our methods are trained by the cell's
objective, robust or not, where the benchmark says natural or adversarial: `Training.OBJECTIVE` stands for that, and is
the benchmark's ``AT`` where the objective is a robust one.

>>> taxonomy_of("hydra").criterion.value, taxonomy_of("hydra").code("fine_tuning")
('learned magnitude', 'AT')
>>> taxonomy_of("nobody-knows") is None
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum


class Facet(Enum):
    """A value of the taxonomy: in words, and as the benchmark abbreviates it.

    Args:
        words: For people.
        code: The benchmark's.
    """

    code: str

    def __new__(cls, words: str, code: str) -> Facet:
        """Makes the words the value, by which a facet is looked up and shown."""
        facet = object.__new__(cls)
        facet._value_, facet.code = words, code
        return facet


class Training(Facet):
    """How weights are trained, before or after pruning."""

    NONE = ("none", "none")
    OBJECTIVE = ("the cell's objective", "AT")
    NATURAL = ("natural", "NT")
    DISTILLATION = ("objective and distillation", "AT, KD")


class Schedule(Facet):
    """When weights are removed."""

    ONE_SHOT = ("one-shot", "1S")
    ITERATIVE = ("iterative", "IT")
    DURING = ("during training", "during training")


class Structure(Facet):
    """What is removed: single weights, or whole filters and neurons."""

    UNSTRUCTURED = ("unstructured", "US")
    STRUCTURED = ("structured", "S")


class Scope(Facet):
    """Over what weights compete: those of their layer, or all."""

    LOCAL = ("local", "L")
    GLOBAL = ("global", "G")


class Criterion(Facet):
    """By what it is decided which ones go."""

    RANDOM = ("random", "none")
    MAGNITUDE = ("magnitude", "LWM")
    LEARNED = ("learned magnitude", "SOLWM")
    RELATIVE = ("relative magnitude", "RELWM")
    IMPORTANCE = ("least importance", "LIS")
    GRADIENT = ("gradient or curvature", "HGM")
    BAYESIAN = ("Bayesian", "BCS")


@dataclass(frozen=True)
class Taxonomy:
    """A method's place.

    Args:
        pre_training: What its weights have been through when it begins.
        fine_tuning: How what is left is trained.
        schedule: When it removes weights.
        structure: What it removes.
        scope: Over what weights compete.
        criterion: By what they are judged.
    """

    pre_training: Training
    fine_tuning: Training
    schedule: Schedule
    structure: Structure
    scope: Scope
    criterion: Criterion

    def words(self) -> dict[str, str]:
        """Returns all six facets in words, by field."""
        return {name: getattr(self, name).value for name in FACETS}

    def code(self, field: str) -> str:
        """Returns a facet, by its field's name, as the benchmark abbreviates it."""
        code: str = getattr(self, field).code
        return code


#: Names of the facets' fields, and what a page calls them.
FACETS: Mapping[str, str] = {field.name: field.name.replace("_", "-") for field in fields(Taxonomy)}

_ONE, _IT, _DURING = Schedule.ONE_SHOT, Schedule.ITERATIVE, Schedule.DURING
_L, _G = Scope.LOCAL, Scope.GLOBAL


def _place(
    criterion: Criterion,
    schedule: Schedule,
    scope: Scope,
    *,
    structure: Structure = Structure.UNSTRUCTURED,
    scratch: bool = False,
    fine_tuning: Training = Training.OBJECTIVE,
) -> Taxonomy:
    pre_training = Training.NONE if scratch else Training.OBJECTIVE
    return Taxonomy(pre_training, fine_tuning, schedule, structure, scope, criterion)


_UNITS = Structure.STRUCTURED
#: By pruner's name; docs/methods.md says what each does.
TAXONOMIES: dict[str, Taxonomy] = {
    "anp-vs": _place(Criterion.BAYESIAN, _ONE, _G, structure=_UNITS),
    "ard": _place(Criterion.MAGNITUDE, _ONE, _L, fine_tuning=Training.DISTILLATION),
    "boosting": _place(Criterion.RELATIVE, _ONE, _G, scratch=True),
    "coevolution": _place(Criterion.IMPORTANCE, _IT, _L, structure=_UNITS),
    "connectivity": _place(Criterion.BAYESIAN, _DURING, _G, scratch=True),
    # The benchmark has no word for ranks; what goes is what has the least singular values.
    "cstar": _place(Criterion.IMPORTANCE, _ONE, _G, structure=_UNITS),
    "deadwooding": _place(Criterion.LEARNED, _ONE, _G, fine_tuning=Training.DISTILLATION),
    "drop-grow": _place(Criterion.MAGNITUDE, _DURING, _L, scratch=True),
    "filter-l1": _place(Criterion.MAGNITUDE, _ONE, _L, structure=_UNITS),
    "flying-bird": _place(Criterion.MAGNITUDE, _DURING, _L, scratch=True),
    "flying-bird-plus": _place(Criterion.MAGNITUDE, _DURING, _L, scratch=True),
    "fre": _place(Criterion.GRADIENT, _IT, _G, structure=_UNITS),
    "grafting": _place(Criterion.MAGNITUDE, _ONE, _L),
    "harp": _place(Criterion.LEARNED, _ONE, _G),
    "hydra": _place(Criterion.LEARNED, _ONE, _L),
    "inheritance": _place(Criterion.MAGNITUDE, _IT, _L),
    "lwm": _place(Criterion.MAGNITUDE, _ONE, _L),
    "lwm-2of4": _place(Criterion.MAGNITUDE, _ONE, _L),
    "lwm-global": _place(Criterion.MAGNITUDE, _ONE, _G),
    "lwm-iterative": _place(Criterion.MAGNITUDE, _IT, _L),
    "lwm-rewind": _place(Criterion.MAGNITUDE, _IT, _L, scratch=True),
    "mad": _place(Criterion.GRADIENT, _ONE, _G),
    "random": _place(Criterion.RANDOM, _ONE, _L),
    "robust-bird": _place(Criterion.MAGNITUDE, _ONE, _G, scratch=True),
    "sparse-vlr": _place(Criterion.MAGNITUDE, _DURING, _L, structure=_UNITS, scratch=True),
    "structured": _place(Criterion.MAGNITUDE, _ONE, _L, structure=_UNITS),
    "structured-filters": _place(Criterion.MAGNITUDE, _ONE, _L, structure=_UNITS),
    "structured-neurons": _place(Criterion.MAGNITUDE, _ONE, _L, structure=_UNITS),
}

#: Pruners that are another one with a setting held fast (`models.pruners.variants`), by name: that other one, and how.
VARIANTS: Mapping[str, tuple[str, str]] = {
    "anp-vs-plain": ("anp-vs", "without the suppression of vulnerability"),
    "boosting-random": ("boosting", "from weights drawn anew"),
    "deadwooding-plain": ("deadwooding", "without distillation"),
    "harp-uniform": ("harp", "from uniform rates"),
    "heracles": ("harp", "with rates by search, then frozen"),
    "hydra-uniform": ("hydra", "uniform rates"),
    "lwm-uniform": ("lwm", "uniform rates"),
}
TAXONOMIES |= {name: TAXONOMIES[origin] for name, (origin, _) in VARIANTS.items()}
TAXONOMIES["deadwooding-plain"] = replace(TAXONOMIES["deadwooding"], fine_tuning=Training.OBJECTIVE)

#: Those of them that keep, or begin with, the same share of every layer, whatever the recipe's allocation.
UNIFORM_RATES = frozenset({"harp-uniform", "hydra-uniform", "lwm-uniform"})

#: Methods whose papers leave so much unsaid that ours is a reconstruction, and why; every row of one says so.
RECONSTRUCTIONS: Mapping[str, str] = {
    "deadwooding": "of its abstract: no code, no numbers",
    "deadwooding-plain": "of its abstract: no code, no numbers",
    "heracles": "of its idea: its agent isn't published in enough detail",
}
#: Follows the name of a reconstruction in a table; a note says what it means.
MARK = "†"


def marked(pruner: str) -> str:
    """Returns a pruner's name as tables have it: with `MARK` behind that of a reconstruction.

    >>> marked("deadwooding"), marked("hydra")
    ('deadwooding†', 'hydra')
    """
    return pruner + MARK if pruner in RECONSTRUCTIONS else pruner


def taxonomy_of(pruner: str) -> Taxonomy | None:
    """Returns a pruner's place, or None where nobody has said it: the dense control, somebody else's method."""
    return TAXONOMIES.get(pruner)
