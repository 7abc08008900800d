"""What is declared of settings: every one of them has a range, which its default keeps and every recipe is held to."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.models import ADDONS, OBJECTIVES, PRUNERS
from prunecert.models.pruners.contract import LENT
from prunecert.models.recipe import RESERVED, Recipe
from prunecert.models.settings import (
    Choices,
    Count,
    RecipeSetting,
    Share,
    Switch,
    check_settings,
    checked,
    setting,
    settings_of,
)
from prunecert.ranges import NumberRange


@dataclass(frozen=True)
class Place:
    """A setting of something that is shipped, and where recipes have it."""

    of: str
    setting: RecipeSetting
    objective: str
    paths: tuple[tuple[str, ...], ...]

    def recipes(self, value: object) -> list[dict[str, Any]]:
        """Returns a recipe for each place where it may stand."""
        recipes = []
        for path in self.paths:
            inner: Any = {self.setting.name: value}
            for key in reversed(path):
                inner = {key: inner}
            recipes.append(inner)
        if self.objective != "natural":
            recipes.append({"finetune_objective": {self.setting.name: {1: self.setting.default, 10: value}}})
        return recipes


def places() -> list[Place]:
    shipped: list[Place] = []
    for name in OBJECTIVES:
        for one in settings_of(OBJECTIVES.get(name), RESERVED).values():
            shipped.append(Place(name, one, name, (("objective",), ("finetune_objective",))))
    for section, registry, reserved in (("addons", ADDONS, RESERVED), ("pruners", PRUNERS, LENT)):
        kinds: Mapping[str, Any] = {name: registry.get(name) for name in registry}
        for name, function in kinds.items():
            for one in settings_of(function, reserved).values():
                shipped.append(Place(name, one, "natural", ((section, name),)))
    return shipped


PLACES = places()


def outside(one: RecipeSetting) -> list[Any]:
    """Returns values of every kind that a setting must refuse."""
    values: list[Any] = [None, [], {}, math.nan, math.inf, -math.inf, not one.default if one.kind is bool else True]
    if one.kind is str:
        return [*values, 1, "", f"{one.default}x"]
    values += ["", "1", -1, 10**400]
    if one.kind is int:
        values += [1.5, float(one.default)]
    limits = one.limits
    if limits.above is not None:
        values.append(limits.above)
    if limits.below is not None:
        values.append(limits.below)
    if limits.at_least is not None:
        values.append(limits.at_least - 1e-3 if one.kind is float else limits.at_least - 1)
    if limits.at_most is not None:
        values.append(limits.at_most * 1.001 if one.kind is float else limits.at_most + 1)
    return values + [value + 1 for value in one.choices[-1:] if isinstance(value, int)]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place.of}.{place.setting.name}")
def test_a_shipped_setting_takes_its_default_and_refuses_what_is_out_of_its_range(place: Place) -> None:
    one = place.setting
    assert one.choices or one.limits, f"{place.of}.{one.name} has no range: annotate it"
    for recipe in place.recipes(one.default):
        Recipe.from_dict(recipe, place.objective)
    for value in outside(one):
        for recipe in place.recipes(value):
            if isinstance(value, dict) and "finetune_objective" in recipe:
                continue
            with pytest.raises(UserError, match=rf"^s: .*{one.name}.* (it must be|Available: )") as caught:
                Recipe.from_dict(recipe, place.objective, where="s")
            assert len(str(caught.value).splitlines()) == 1


def test_all_sections_are_among_them() -> None:
    assert len(PLACES) > 80
    assert {place.paths[0][0] for place in PLACES} == {"objective", "addons", "pruners"}


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(PLACES), st.floats() | st.integers() | st.text(max_size=9) | st.booleans() | st.none())
def test_what_a_recipe_takes_is_what_the_setting_allows(place: Place, value: object) -> None:
    allowed = not place.setting.why_refused(value)
    for recipe in place.recipes(value):
        try:
            Recipe.from_dict(recipe, place.objective)
        except UserError:
            assert not allowed
        else:
            assert allowed
    if allowed and isinstance(value, int | float) and place.setting.kind is not str:
        assert math.isfinite(value)
        assert place.setting.limits.hold(value)


def example(
    x: int, *, share: Share = 0.5, steps: Count = 3, on: Switch = 0, mode: Literal["a", "b"] = "a", **more: Any
) -> str:
    return f"{x} {share} {steps} {on} {mode} {more}"


def bare(x, *, alpha=1, flag=False, word="w", later: Unknown = 2, needed):  # type: ignore[no-untyped-def, name-defined]  # noqa: F821
    raise AssertionError


def test_annotations_say_kind_range_and_choices() -> None:
    declared = settings_of(example, {"x", "more"})
    assert {name: (one.kind, one.allowed) for name, one in declared.items()} == {
        "share": (float, "a number from 0 to 1"),
        "steps": (int, "a whole number from 1 to 1,000,000,000"),
        "on": (int, "0 or 1"),
        "mode": (str, "a or b"),
    }
    assert settings_of(functools.partial(example, share=0.1), {"x", "more"})["share"].limits == declared["share"].limits


def test_what_is_not_annotated_takes_any_number_text_or_truth_value() -> None:
    declared = settings_of(bare, {"x"})
    assert {name: one.allowed for name, one in declared.items()} == {
        "alpha": "a number",
        "flag": "true or false",
        "word": "text",
        "later": "a number",
        "needed": "a number",
    }
    assert not declared["alpha"].why_refused(0.5)
    assert declared["alpha"].why_refused(math.inf)
    assert not declared["flag"].why_refused(True)
    assert declared["flag"].why_refused(1)


@pytest.mark.parametrize(
    ("annotation", "default", "allowed"),
    [
        (Annotated[float, NumberRange(at_most=9)], 1.0, "a number, at most 9"),
        (Annotated[str, Choices("a")], "a", "a"),
        (Annotated[str, Choices("a", "b", "c")], "a", "a, b or c"),
        (float, 1, "a number"),
        (int, 1, "a whole number"),
        ("Mapping", 1, "a number"),
    ],
)
def test_it_is_said_in_words(annotation: Any, default: object, allowed: str) -> None:
    assert setting("s", annotation, default).allowed == allowed


def test_refusals_name_place_value_and_what_is_allowed() -> None:
    check: Callable[[object], None] = lambda values: check_settings(values, example, {"x", "more"}, "it 'e'", "s: here")  # noqa: E731
    check({"share": 1, "steps": 1, "on": 1, "mode": "b"})
    for values, message in (
        ({"share": 7}, "s: here.share is 7; it must be a number from 0 to 1."),
        ({"steps": 1.5}, "s: here.steps is 1.5; it must be a whole number from 1 to 1,000,000,000."),
        ({"mode": "c"}, "s: here: Unknown mode 'c' of it 'e'. Available: a, b."),
        ({"mdoe": "a"}, "s: here: Unknown setting 'mdoe' of it 'e'. Did you mean 'mode'? Available: mode, on, share, "),
        ({3: "a"}, "s: here: Unknown setting '3' of it 'e'."),
        (3, "s: here is 3; it must be a mapping of settings."),
    ):
        with pytest.raises(UserError) as caught:
            check(values)
        assert str(caught.value).startswith(message)


def test_a_checked_function_refuses_when_it_is_called_and_is_what_it_was() -> None:
    call = checked(example, {"x", "more"})
    assert call(1, share=0.25, z=9) == example(1, share=0.25, z=9)
    assert call.__name__ == "example"
    assert settings_of(call, {"x", "more"}) == settings_of(example, {"x", "more"})
    with pytest.raises(UserError, match=r"^share 2 is refused: it must be a number from 0 to 1\.$"):
        call(1, share=2.0)
    with pytest.raises(UserError, match=r"^Unknown mode 'c'\. Available: a, b\.$"):
        call(1, mode="c")  # type: ignore[arg-type]
