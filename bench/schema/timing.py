"""How a suite's times are taken: the `timing` section of a suite, checked on load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prunecert.bench.schema.yamlfile import Section
from prunecert.errors import UserError, did_you_mean
from prunecert.hashing import digest

MASKED, FILLED, COMPACT = "masked", "filled", "compact"
#: What a network may be written as; see `bench.timing.variants`.
VARIANTS = (MASKED, COMPACT)


@dataclass(frozen=True)
class Dose:
    """How much of a verifier a timing run takes.

    Args:
        images: Images of those that all networks of a group classify correctly, at most.
        repeats: How often each image is asked.
        batch: Images handed over together.
    """

    images: int
    repeats: int
    batch: int = 1


@dataclass(frozen=True)
class Timing:
    """How times are taken.

    Args:
        images: See `Dose`; for verifiers of which `by_verifier` says nothing else.
        repeats: Likewise.
        chunk: Images that a network meets before it is the next one's turn.
        seed: Of the order in which networks take turns.
        variants: How each pruned network is written: of `VARIANTS`; masked always comes first.
        control: Verifiers that also meet the masked network with its zeros filled.
        by_verifier: Keys of `Dose` by verifier, where they differ.
        optional: Verifiers that are left out, by name, where they are not installed.
    """

    images: int = 24
    repeats: int = 3
    chunk: int = 8
    seed: int = 0
    variants: tuple[str, ...] = VARIANTS
    control: tuple[str, ...] = ()
    by_verifier: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()

    def dose(self, verifier: str) -> Dose:
        """Returns how much of a verifier is taken."""
        return Dose(**{"images": self.images, "repeats": self.repeats, **self.by_verifier.get(verifier, {})})

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {
            "images": self.images,
            "repeats": self.repeats,
            "chunk": self.chunk,
            "seed": self.seed,
            "variants": list(self.variants),
            "control": list(self.control),
            "by_verifier": {name: dict(values) for name, values in self.by_verifier.items()},
            "optional": list(self.optional),
        }

    def order(self, *parts: str | int) -> str:
        """Returns what to sort by for an order that looks random and only the seed and `parts` decide."""
        return digest([self.seed, *parts])


def take_timing(section: Section, base: Timing | None, check_verifier: Callable[[str], Any]) -> Timing:
    """Reads a `timing` section.

    Args:
        section: The section.
        base: What it changes, if a level above has one.
        check_verifier: Raises a `UserError` on an unknown verifier.

    Raises:
        UserError: A key is unknown, or a value of the wrong type or out of range.
    """
    base = base or Timing()
    images, repeats, chunk = (_whole(section, key, getattr(base, key)) for key in ("images", "repeats", "chunk"))
    seed = section.take("seed", int, base.seed)
    if not 0 <= seed < 2**31:
        raise section.refusal("seed", f"{seed} is refused; it must be at least 0 and below 2^31.")
    variants = section.take_list("variants", str, _check_variant, base.variants)
    control = section.take_list("control", str, check_verifier, base.control)
    optional = section.take_list("optional", str, check_verifier, base.optional)
    by_verifier = {name: dict(values) for name, values in base.by_verifier.items()}
    subsection = section.section("by_verifier")
    for name in subsection.data if subsection else ():
        assert subsection is not None
        try:
            check_verifier(name)
        except UserError as error:
            raise subsection.refusal(name, str(error)) from error
        own = subsection.section(name)
        assert own is not None
        for key in ("images", "repeats", "batch"):
            if key in own:
                by_verifier.setdefault(name, {})[key] = _whole(own, key, 1)
        own.finish(("images", "repeats", "batch"))
    section.finish()
    ordered = tuple(name for name in VARIANTS if name in (MASKED, *variants))
    return Timing(images, repeats, chunk, seed, ordered, control, by_verifier, optional)


def _whole(section: Section, key: str, default: int) -> int:
    value = section.take(key, int, default)
    if not 1 <= value <= 10_000:
        raise section.refusal(key, f"{value} is refused; it must be within 1 and 10,000.")
    return value


def _check_variant(name: str) -> None:
    if name not in VARIANTS:
        raise UserError(did_you_mean("variant", name, VARIANTS))
