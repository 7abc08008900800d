"""Declared settings: what is recorded of them, what is refused and how, and that every adapter's table is its own."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.hashing import digest
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.settings import Setting, paragraph, resolve, rows

#: Of each verifier's defaults, as rows under results/ bear them: another hash is another question.
PUBLISHED = {
    "abcrown": "a9d1b722cd93",
    "alpha-crown": "c21bcad805b0",
    "autoattack": "3952eec5a86d",
    "crown": "b1560a4c746e",
    "crown-ibp": "b1560a4c746e",
    "ibp": "b1560a4c746e",
    "marabou": "811f6c92aaaa",
    "neuralsat": "95a4a64596cb",
    "pgd": "f881112c7579",
    "smoothing": "e499e3922cdb",
    "sparse-alpha-crown": "dc813fb5946e",
    "sparse-bab": "0ac5673e2821",
    "sparse-crown": "44136fa355b3",
    "sparse-crown-ibp": "44136fa355b3",
    "sparse-ibp": "44136fa355b3",
}
#: A setting, what it says is allowed, and a value on each side of its limits.
RANGES = [
    (Setting(default=1, at_least=1, help="h"), "1 or more", 1, 0),
    (Setting(default=1, above=0, help="h"), "above 0", 1, 0),
    (Setting(default=1, at_least=0, at_most=9, help="h"), "from 0 to 9", 9, 10),
    (Setting(default=0.5, at_least=1e-7, below=1, help="h"), "from 1e-7 to below 1", 1e-7, 1.0),
    (Setting(default=1, above=0, at_most=20_000, help="h"), "above 0 and at most 20,000", 20_000, 20_001),
    (Setting(default=0.5, above=0, below=1, help="h"), "within (0, 1)", 0.999, 1.0),
    (Setting(default=1, at_most=9, help="h"), "at most 9", -99, 10),
    (Setting(default=1.0, below=9.5, help="h"), "below 9.5", -99.0, 9.5),
]


def test_the_hashes_of_published_settings_stay() -> None:
    assert {name: digest(VERIFIERS.get(name).resolve())[:12] for name in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_adapter_says_what_each_setting_means(name: str) -> None:
    adapter = VERIFIERS.get(name)
    for setting, (key, default, allowed, meaning) in zip(
        adapter.known_settings.values(), rows(adapter.known_settings), strict=True
    ):
        assert all((key, default, allowed, meaning))
        assert not meaning.endswith(".")
        assert adapter.resolve({key: setting.default}) == adapter.resolve()
    doc = adapter.__doc__ or ""
    assert doc.count("Settings:") == bool(adapter.known_settings)
    assert doc.endswith(paragraph(adapter.known_settings)) or not adapter.known_settings


@pytest.mark.parametrize(("setting", "allowed", "inside", "outside"), RANGES)
def test_a_value_out_of_range_is_refused_with_the_range(
    setting: Setting, allowed: str, inside: float, outside: float
) -> None:
    assert setting.allowed == allowed
    assert setting.check("ibp", "key", inside) == inside
    with pytest.raises(UserError) as caught:
        setting.check("ibp", "key", outside)
    assert str(caught.value) == f"Setting 'key' of verifier 'ibp' is {outside!r}; it must be {allowed}."
    if isinstance(setting.default, float):
        with pytest.raises(UserError, match=r"is nan; it must be"):
            setting.check("ibp", "key", math.nan)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_a_value_is_recorded_in_the_type_of_its_default_or_refused(value: Any) -> None:
    for default in (True, 1, 1.0, "a", {"a": 1}):
        setting = Setting(default=default, help="h")
        same = type(value) is type(default) or (isinstance(default, float) and type(value) is int)
        if same and (type(value) is not int or abs(value) < 2**63):
            recorded = setting.check("ibp", "key", value)
            assert type(recorded) is type(default)
            assert recorded == pytest.approx(value, nan_ok=True) if isinstance(default, float) else recorded == value
        elif not same:
            with pytest.raises(UserError, match=r"^Setting 'key' .*; it must be of type \w+ \(default .*\)\.$"):
                setting.check("ibp", "key", value)


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**9000], ids=["401", "minus-401", "9001"])
def test_numbers_of_many_digits_are_refused_in_one_short_sentence(value: int) -> None:
    for default in (1.0, 1):
        for setting in (Setting(default=default, above=0, help="h"), Setting(default=default, help="h")):
            with pytest.raises(UserError, match=r"is refused: it has too many digits; it must be [^;]*\.$"):
                setting.check("ibp", "key", value)
    with pytest.raises(UserError, match="must be of type str") as caught:
        Setting(default="a", help="h").check("ibp", "key", value)
    assert len(str(caught.value)) < 500


def test_what_is_not_given_has_its_default_and_unknown_names_are_refused() -> None:
    declared = {
        "steps": Setting(default=4, at_least=1, help="h"),
        "mode": Setting(default="fast", choices=("fast", "slow"), help="h"),
    }
    assert resolve("v", declared, None) == {"steps": 4, "mode": "fast"}
    assert resolve("v", declared, {"mode": "slow"}) == {"steps": 4, "mode": "slow"}
    with pytest.raises(UserError, match=r"Unknown setting 'step' of verifier 'v'\. Did you mean 'steps'"):
        resolve("v", declared, {"step": 1})
    with pytest.raises(UserError, match=r"Unknown value 'slo' of v's setting 'mode'\. Did you mean 'slow'"):
        resolve("v", declared, {"mode": "slo"})


@pytest.mark.parametrize(
    "fields",
    [
        {"default": None},
        {"default": 0, "at_least": 1},
        {"default": 1, "at_least": 0, "above": 0},
        {"default": 1, "at_most": 2, "below": 2},
        {"default": "a", "at_least": 0},
        {"default": True, "at_least": 0},
        {"default": "a", "choices": ("b", "c")},
    ],
)
def test_declarations_that_refuse_their_own_default_are_mistakes(fields: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Setting(**fields, help="h")
