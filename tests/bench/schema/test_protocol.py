from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.schema.cell import Protocol
from prunecert.bench.schema.protocol import ATTACK_ONLY, check_protocol, override_protocol, parse_compact, read_protocol
from prunecert.bench.schema.yamlfile import Document, Section
from prunecert.compaction import Mode
from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind

SIZES = {"test": 100}
VERIFY = "{images: 3, cascade: [ibp, pgd, neuralsat], timeouts: {ibp: 1, pgd: 2, neuralsat: 30}}"


def section(tmp_path: Path, text: str) -> Section:
    (tmp_path / "x.yaml").write_text(text)
    return Document(tmp_path / "x.yaml").root


def protocol(tmp_path: Path, verify: str = VERIFY, base: Protocol | None = None) -> Protocol:
    part = section(tmp_path, f"verify: {verify}\n").section("verify")
    assert part is not None
    return read_protocol(part, base or Protocol(), SIZES)


def test_what_a_section_does_not_say_is_as_before(tmp_path: Path) -> None:
    base = protocol(tmp_path)
    assert (base.images, base.cascade, base.timeouts["neuralsat"]) == (3, ("ibp", "pgd", "neuralsat"), 30)
    changed = protocol(tmp_path, "{images: 9, timeouts: {neuralsat: 5}}", base)
    assert (changed.images, changed.cascade) == (9, base.cascade)
    assert changed.timeouts == {**base.timeouts, "neuralsat": 5}


def test_a_word_stands_for_attacks_alone(tmp_path: Path) -> None:
    base = protocol(tmp_path)
    alone = override_protocol(section(tmp_path, f"verify: {ATTACK_ONLY}\n"), "verify", base, SIZES)
    assert [VERIFIERS.get(name).kind for name in alone.cascade] == [Kind.ATTACK]
    assert "nothing is verified here" in alone.note
    assert override_protocol(section(tmp_path, "other: 1\n"), "verify", base, SIZES) is base


@pytest.mark.parametrize(
    ("value", "mode"), [(True, Mode.PIXELS), (False, Mode.OFF), ("exact", Mode.EXACT), ("all-inputs", Mode.ALL_INPUTS)]
)
def test_compaction_is_a_mode_or_yes_or_no(value: object, mode: Mode) -> None:
    assert parse_compact(value) is mode
    with pytest.raises(UserError, match="allowed are true, false"):
        parse_compact("pixel")


@pytest.mark.parametrize(
    ("verify", "noise", "message"),
    [
        (VERIFY, True, "add 'verify.certify'"),
        ("{images: 3}", False, "no verifier is left"),
        ("{images: 3, cascade: [ibp]}", False, "'ibp' has no time limit"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, verify: str, noise: bool, message: str) -> None:
    base = protocol(tmp_path, verify)
    with pytest.raises(UserError, match=message):
        check_protocol(section(tmp_path, "a: 1\n"), base, noise)


def test_a_verifier_that_nobody_knows_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.yaml, line 1.*Did you mean 'crown'"):
        protocol(tmp_path, "{cascade: [crwon]}")
