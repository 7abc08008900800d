"""The space of a recipe search: which keys may take which values, and what is drawn or taken one by one from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.bench.schema.yamlfile import Document, Section, yaml_file
from prunecert.errors import UserError

#: Draws before the space counts as exhausted.
_PATIENCE = 200


@dataclass(frozen=True)
class Choice:
    """One of several values, each equally likely."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that show whether all are allowed: each."""
        return self.values

    def draw(self, generator: np.random.Generator) -> Any:
        """Returns a value."""
        return self.values[int(generator.integers(len(self.values)))]


@dataclass(frozen=True)
class Range:
    """A number within bounds.

    Args:
        low: Least value.
        high: Largest value.
        log: Whether its logarithm is drawn evenly, instead of itself.
        whole: Whether it is a whole number.
    """

    low: float
    high: float
    log: bool
    whole: bool

    @property
    def ends(self) -> tuple[int | float, ...]:
        """The values that show whether all are allowed: the least and the largest."""
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)

    def draw(self, generator: np.random.Generator) -> int | float:
        """Returns a value, rounded to three significant digits if it is no whole number."""
        if self.log:
            value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = generator.uniform(self.low, self.high + self.whole)
        if self.whole:
            return min(int(value), int(self.high))
        return float(min(max(float(f"{value:.3g}"), self.low), self.high))


Space = Mapping[str, Choice | Range]
#: Where the shipped spaces lie.
SPACES = Path(__file__).parents[1] / "suites" / "spaces"


def read_space(name_or_path: str | Path) -> Space:
    """Reads a shipped space, by its name, or a YAML file.

    A space has recipe keys (dotted for what lies within, e.g. ``objective.alpha``) with what they may be.
    A list is a choice; ``{low: 1e-4, high: 1e-2, log: true}`` is a range. Keys that change together stand with commas
    between them, and each of their values is a list: ``objective.steps, objective.step_size: [[8, 0.25], [2, 0.75]]``.

    Raises:
        UserError: It is not like that, or empty.
    """
    path = yaml_file("space", name_or_path, SPACES)
    root = Document(path).root
    space: dict[str, Choice | Range] = {}
    for key, value in root.data.items():
        if isinstance(value, list) and value:
            together = len(_names(key))
            for one in value:
                if together > 1 and not (isinstance(one, list) and len(one) == together):
                    raise root.refusal(
                        key,
                        f"{one!r} is refused; {together} keys change together here, so it must list {together}.",
                    )
            space[key] = Choice(tuple(value))
        elif isinstance(value, dict):
            section = root.section(key)
            assert section is not None
            space[key] = _range(section)
        else:
            raise root.refusal(
                key, f"{value!r} is refused; it must be a list of values, or a range like {{low: 0.1, high: 1}}."
            )
    if not space:
        raise UserError(f"{path} is refused: it names no recipe key; give at least one, e.g. lr: [0.001, 0.0005].")
    return space


def _names(key: str) -> list[str]:
    return [name.strip() for name in key.split(",")]


def _range(section: Section) -> Range:
    whole = all(isinstance(section.data.get(key), int) for key in ("low", "high"))
    low, high = section.take("low", float), section.take("high", float)
    log = section.take("log", bool, False)
    section.finish(("low", "high", "log"))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise section.refusal("high", f"{high:g} is refused; it must be a number above low = {low:g}.")
    if log and low <= 0:
        raise section.refusal("low", f"{low:g} is refused; with log it must be above 0.")
    return Range(low, high, log, whole)


def draw(space: Space, trials: int, seed: int) -> list[dict[str, Any]]:
    """Returns what each trial changes: nothing for the first, then different draws.

    The first trials are the same whatever their number. There are fewer than asked where a space is exhausted.

    Args:
        space: The space.
        trials: How many, the unchanged one included.
        seed: Seed of the draws.
    """
    generator = np.random.default_rng(seed)
    draws: list[dict[str, Any]] = [{}]
    while len(draws) < trials:
        for _ in range(_PATIENCE):
            changes = {key: domain.draw(generator) for key, domain in space.items()}
            if changes not in draws:
                draws.append(changes)
                break
        else:
            break
    return draws


def one_by_one(space: Space) -> list[dict[str, Any]]:
    """Returns what each trial of an ablation changes: nothing for the first, then each value by itself.

    Raises:
        UserError: The space has a range, which has no values to go through.
    """
    changes: list[dict[str, Any]] = [{}]
    for key, domain in space.items():
        if isinstance(domain, Range):
            raise UserError(f"--one-by-one: {key!r} is a range; give a list, each value of which is tried.")
        changes += [{key: value} for value in domain.values]
    return changes


def apply(recipe: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe's keys and values with changes.

    A dotted key changes what lies within a mapping, one with commas several keys.

    Raises:
        UserError: A dotted key leads into something that is no mapping.
    """
    result: dict[str, Any] = _copy(recipe)
    for key, value in _single(changes).items():
        *path, last = key.split(".")
        inner = result
        for part in path:
            following = inner.setdefault(part, {})
            if following is None:
                following = inner[part] = {}
            if not isinstance(following, dict):
                raise UserError(f"The space's key {key!r} is refused: {part!r} is {following!r} there, no mapping.")
            inner = following
        inner[last] = value
    return result


def _single(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns changes with a key for each value, where several stood together."""
    single: dict[str, Any] = {}
    for key, value in changes.items():
        names = _names(key)
        single |= zip(names, value, strict=True) if len(names) > 1 else {key: value}
    return single


def _copy(data: Any) -> Any:
    return {key: _copy(value) for key, value in data.items()} if isinstance(data, Mapping) else data


def scale_epochs(recipe: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Returns a recipe with its epochs shortened alike; a stage that there was keeps at least one epoch.

    Args:
        recipe: All keys and values.
        share: Of the epochs, in (0, 1].
    """
    scaled = dict(recipe)
    for key in ("pretrain_epochs", "prune_epochs", "finetune_epochs"):
        scaled[key] = max(1, round(recipe[key] * share)) if recipe[key] else 0
    # The ramp, and what is before it, must end within pre-training, and leave it some epochs as they did.
    scaled["warmup_epochs"] = min(round(recipe["warmup_epochs"] * share), scaled["pretrain_epochs"] - 1)
    room = scaled["pretrain_epochs"] - scaled["warmup_epochs"]
    scaled["ramp_epochs"] = min(round(recipe["ramp_epochs"] * share), room)
    return scaled
