"""What a suite may ask of pairs, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.schema.pairs import PairProtocol
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from tests.bench.conftest import SUITE


def suite(folder: Path, pair: str) -> Path:
    """Writes the tiny suite with a word on pairs; returns its file."""
    path = folder / "asked.yaml"
    text = SUITE.replace("  images: 40\n", f"  images: 40\n  pair: {pair}\n").replace("ibp: 30,", "sparse-pair: 9,")
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("dense", PairProtocol()),
        ("{}", PairProtocol()),
        ("{with: dense, alike: 'class:0.5', steps: true}", PairProtocol(("class:0.5",), steps=True)),
        ("{alike: [class, difference:1], images: 7}", PairProtocol(("class", "difference:1"), images=7)),
    ],
)
def test_what_a_suite_asks(tmp_path: Path, pair: str, expected: PairProtocol) -> None:
    path = suite(tmp_path, pair)
    comparing, plain = load_suite(str(path)), load_suite(str(suite(tmp_path, pair)), "half")
    assert {protocol.pair for _, protocol in comparing.cells} == {expected}
    # A profile that says nothing of pairs asks the same.
    assert {protocol.pair for _, protocol in plain.cells} == {expected}
    assert comparing.to_json()["cells"][0]["verify"]["pair"] == expected.to_json()


def test_a_suite_without_pairs_has_the_digest_that_it_had(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(SUITE)
    cells = load_suite(str(tmp_path / "tiny.yaml")).to_json()["cells"]
    assert all("pair" not in cell["verify"] for cell in cells)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("hydra", "pair: 'hydra' is refused; allowed is 'dense', or a section of 'with', 'alike'"),
        ("true", "pair: True is refused; allowed is 'dense', or a section of 'with', 'alike'"),
        ("[dense]", r"pair: \['dense'\] is refused; allowed is 'dense', or a section of 'with', 'alike'"),
        ("", "pair: nothing stands there, which is refused; allowed is 'dense', or a section of"),
        ("3", "pair: 3 is refused; allowed is 'dense', or a section of"),
        ("{alike: [0.5]}", r"alike 0\.5 is refused; allowed are difference:T .* in quotes: 'class:0\.5'"),
        ("{alike: [difference: 0.5]}", r"alike \{'difference': 0\.5\} is refused; allowed are difference:T"),
        ("{alike: {class: 1}}", r"alike \{'class': 1\} is refused; allowed are difference:T"),
        ("{alike: ['class:0.5', 'class:0.50']}", r"'class:0\.50' is refused; it stands in the list as 'class:0\.5'"),
        ("{alike: [class, 'class:0']}", r"'class:0' is refused; it stands in the list as 'class'"),
        ("{alike: class:1_0}", "alike 'class:1_0' is refused; allowed are difference:T"),
        ("{with: lwm}", "'lwm' is refused; allowed is 'dense'"),
        ("{alike: same}", "alike 'same' is refused; allowed are difference:T"),
        ("{alike: 'difference:0'}", "alike 'difference:0' is refused; T must be a finite number above 0"),
        ("{verifiers: [pgd]}", "'pgd' is refused for pairs because it proves nothing"),
        (
            "{verifiers: [pdg]}",
            r"Unknown verifier 'pdg'.* Available: abcrown, (?!.*(pgd|autoattack|smoothing)).*sparse-pair",
        ),
        ("{verifiers: [sparse-bab]}", "'sparse-bab' has no time limit"),
        ("{images: 0}", "within 1 and 10,000"),
        ("{step: true}", "Did you mean 'steps'"),
        ("dense\n  timing: {repeats: 1}", "'timing'"),
    ],
)
def test_what_a_suite_must_not_say_of_pairs(tmp_path: Path, pair: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        load_suite(str(suite(tmp_path, pair)))
    assert "asked.yaml" in str(refused.value)


def test_of_its_verifiers_those_are_left_that_are_named() -> None:
    pair = PairProtocol(verifiers=("sparse-pair", "sparse-bab"))
    assert pair.only(("pgd", "sparse-pair")) == PairProtocol()
    assert pair.only(("pgd",)) is None
