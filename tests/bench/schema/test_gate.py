from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from prunecert.bench.schema.gate import Budget, CellLimits, RuleSet
from prunecert.bench.schema.suite import load_rules, load_suite
from prunecert.errors import UserError


def rules(tmp_path: Path, text: str) -> RuleSet:
    path = tmp_path / "rules.yaml"
    path.write_text(f"gate:\n{text}")
    return load_rules(path)


def test_a_cell_goes_before_its_network_and_that_before_the_rest(tmp_path: Path) -> None:
    rule_set = rules(
        tmp_path,
        """\
  verified: -0.5pp
  attacked: -2pp
  timeouts: 2%
  strict_below: 0.25
  networks:
    cnn-large: {verified: -3 pp, broken: 4}
  cells:
    "*_x10_*": {verified: 0pp, verified_min: 40%}
    "cnn-large_*_x10_*": {verified_min: 12.5%}
""",
    )
    assert rule_set.of("cnn-small_ibp_x1_s0", "cnn-small") == CellLimits(
        verified=Fraction(-1, 200), attacked=Fraction(-1, 50), timeouts=Budget(share=Fraction(1, 50)), strict_below=0.25
    )
    large = rule_set.of("cnn-large_ibp_x1_s0", "cnn-large")
    assert (large.verified, large.broken) == (Fraction(-3, 100), Budget(4))
    both = rule_set.of("cnn-large_ibp_x10_s0", "cnn-large")
    assert (both.verified, both.broken, both.verified_min) == (Fraction(0), Budget(4), Fraction(1, 8))
    assert rule_set.idle(["cnn-small_ibp_x10_s0"]) == ["cnn-large_*_x10_*"]
    assert rule_set.source == "rules.yaml"


def test_certificates_may_be_required_and_nothing_else(tmp_path: Path) -> None:
    assert rules(tmp_path, "  require: certificates\n").require == "certificates"
    assert rules(tmp_path, "  clean: 0pp\n").require == ""
    with pytest.raises(UserError, match=r"line 2, gate.require: Unknown requirement 'certificate'\. Did you mean"):
        rules(tmp_path, "  require: certificate\n")


@pytest.mark.parametrize(
    ("budget", "images", "allowed"),
    [(Budget(3), 10, 3), (Budget(share=Fraction(2, 100)), 50, 1), (Budget(share=Fraction(2, 100)), 49, 0)],
)
def test_a_share_of_images_is_rounded_down(budget: Budget, images: int, allowed: int) -> None:
    assert budget.allowed(images) == allowed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  verifed: -1pp\n", r"line 2, gate.verifed: Unknown key 'verifed'\. Did you mean 'verified'"),
        ("  verified: 1pp\n", r"gate.verified: '1pp' is refused; .* e\.g\. -0\.5pp"),
        ("  verified: -0.5\n", r"gate.verified: -0.5 is refused"),
        ("  clean: -101pp\n", r"'-101pp' is refused"),
        ("  verified_min: 40\n", r"gate.verified_min: 40 is refused; .* e\.g\. 40%"),
        ("  verified_min: 140%\n", r"'140%' is refused"),
        ("  timeouts: -1\n", r"gate.timeouts: -1 is refused; .* 3 or 2%"),
        ("  broken: true\n", r"True is refused"),
        ("  time: 0.5\n", r"0.5 is refused; it must be a number within 1 and 1000"),
        ("  strict_below: half\n", r"'half' is refused"),
        ("  networks: {cnn-smal: {}}\n", r"gate.networks.cnn-smal: Unknown network 'cnn-smal'\. Did you mean"),
        ("  cells: {'*': {verified_mn: 1%}}\n", r"Did you mean 'verified_min'"),
        ("  cells: {'*': 3}\n", r"3 is refused; it must be a mapping"),
    ],
)
def test_slips_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rules(tmp_path, text)


def test_a_file_without_rules_or_with_other_keys_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("gat: {}\n")
    with pytest.raises(UserError, match=r"Unknown key 'gat'\. Did you mean 'gate'"):
        load_rules(path)
    path.write_text("{}\n")
    with pytest.raises(UserError, match="the key 'gate' is missing"):
        load_rules(path)


SUITE = """\
name: tiny
description: none
cells: [{networks: cnn-small, objectives: ibp, eps: 2/255, compression: 1}]
verify: {cascade: ibp, timeouts: {ibp: 5}}
"""


def test_a_suite_carries_its_rules_and_they_do_not_change_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    plain = load_suite(str(path))
    assert plain.gate is None
    with pytest.raises(UserError, match="the key 'gate' is missing"):
        load_rules(path)
    path.write_text(SUITE + "gate: {verified: -2pp, cells: {'cnn-small_*': {clean: -3pp}}}\n")
    suite = load_suite(str(path))
    assert suite.gate == load_rules(path)
    assert suite.gate is not None
    assert suite.gate.of("cnn-small_ibp_eps2_dense_x1_s0", "cnn-small").clean == Fraction(-3, 100)
    assert suite.digest() == plain.digest()
    path.write_text(SUITE + "gate: {cells: {'cnn-large_*': {clean: -3pp}}}\n")
    with pytest.raises(UserError, match=r"line 5, gate.cells.cnn-large_\*: Unknown cell"):
        load_suite(str(path))


def test_the_main_suite_has_rules() -> None:
    assert load_suite("cifar10-4nets").gate is not None
