"""What a suite asks of pairs of its networks: the `pair` section of `verify`, checked on load (docs/pairs.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from prunecert.bench.schema.alike import ALIKE, alike_spec
from prunecert.bench.schema.yamlfile import Section
from prunecert.errors import UserError
from prunecert.models import DENSE
from prunecert.printable import shortened
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind

#: Made for pairs; what a suite asks if it names nobody.
PAIR_VERIFIER = "sparse-pair"
#: As few outputs as any question about classes needs; enough to find out whether a text can be asked.
_FEW = 2
_KEYS = "'with', 'alike', 'verifiers', 'steps' and 'images'"


@dataclass(frozen=True)
class PairProtocol:
    """What is asked of a pruned network and another of its chain, over every image's box.

    Args:
        alike: What is asked, as ``bench.verify --alike`` has it; each is a question of its own.
        verifiers: Who is asked, in the order in which an undecided image meets them; limits and settings are those of
            the cell's protocol.
        steps: Whether each network is compared with the one pruned less before it, too, and not only with the dense.
        images: How many, from the first on; None: as many as are verified. All are asked about, whatever the networks
            make of them.
    """

    alike: tuple[str, ...] = ("class",)
    verifiers: tuple[str, ...] = (PAIR_VERIFIER,)
    steps: bool = False
    images: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {
            "with": DENSE,
            "alike": list(self.alike),
            "verifiers": list(self.verifiers),
            "steps": self.steps,
            "images": self.images,
        }

    def only(self, verifiers: tuple[str, ...]) -> PairProtocol | None:
        """Returns the protocol with those of its verifiers that are named; None: nobody is."""
        mine = tuple(name for name in self.verifiers if name in verifiers)
        return replace(self, verifiers=mine) if mine else None


def take_pair(parent: Section, base: PairProtocol | None, most_images: int) -> PairProtocol | None:
    """Reads `pair`: ``dense``, or a section.

    Args:
        parent: The section that has the key, or hasn't.
        base: What it changes, if a level above has one.
        most_images: Images of the split.

    Raises:
        UserError: A key is unknown, or a value of the wrong type or out of range.
    """
    if not isinstance(value := parent.data.get("pair", {}), dict):
        if value is None or parent.take("pair", object) != DENSE:
            text = "nothing stands there, which" if value is None else shortened(repr(value), 60)
            raise parent.refusal("pair", f"{text} is refused; allowed is {DENSE!r}, or a section of {_KEYS}.")
        return base or PairProtocol()
    section = parent.section("pair")
    if section is None:
        return base
    pair = base or PairProtocol()
    if section.take("with", str, DENSE) != DENSE:
        raise section.refusal("with", f"{section.data['with']!r} is refused; allowed is {DENSE!r}.")
    alike = _take_alike(section, pair.alike)
    verifiers = section.take_list("verifiers", str, _check_proving, pair.verifiers)
    steps = section.take("steps", bool, pair.steps)
    images = section.take("images", int, pair.images or most_images)
    if not 1 <= images <= most_images:
        raise section.refusal("images", f"{images} is refused; it must be within 1 and {most_images:,}.")
    section.finish()
    asked_about = images if "images" in section else pair.images
    return PairProtocol(alike, verifiers, steps, asked_about)


def _take_alike(section: Section, default: tuple[str, ...]) -> tuple[str, ...]:
    """Reads what is asked; the same, however it is written, is asked once."""
    texts: dict[str, str] = {}

    def check(value: object) -> None:
        if not isinstance(value, str):
            raise UserError(
                f"alike {shortened(repr(value), 60)} is refused; allowed are {ALIKE}, each written as one text, in "
                "quotes: 'class:0.5'."
            )
        question = alike_spec(value, _FEW, "alike").digest()
        if question in texts:
            raise UserError(f"alike {value!r} is refused; it stands in the list as {texts[question]!r} already.")
        texts[question] = value

    return tuple(str(value) for value in section.take_list("alike", object, check, default))


def proves(name: str) -> bool:
    """Whether a verifier can prove anything."""
    return VERIFIERS.get(name).kind in (Kind.COMPLETE, Kind.INCOMPLETE)


def _check_proving(name: str) -> None:
    VERIFIERS.check(name, proves)
    if not proves(name):
        raise UserError(f"{name!r} is refused for pairs because it proves nothing; allowed are verifiers that do.")
