"""Hashes of content: the same for the same data however it is written, another for other data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.hashing import canonical_json, digest, sha256_file

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), JSON), st.randoms())
def test_the_order_of_keys_does_not_matter(data: dict[str, object], random: object) -> None:
    names = list(data)
    random.shuffle(names)  # type: ignore[attr-defined]
    assert digest({name: data[name] for name in names}) == digest(data)


@given(JSON, JSON)
def test_canonical_json_is_json_and_differs_where_data_do(one: object, two: object) -> None:
    assert json.loads(canonical_json(one)) == one
    assert (canonical_json(one) == canonical_json(two)) == (digest(one) == digest(two))
    assert canonical_json({"a": one}) == canonical_json(json.loads(json.dumps({"a": one}, indent=3)))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_no_number_for_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": [number]})


def test_published_identifiers_stay() -> None:
    """Rows of old runs are looked up by them."""
    text = r'{"a":"\u03b5","b":[1,2.5,null,true]}'
    assert digest({"b": [1, 2.5, None, True], "a": "ε"}) == hashlib.sha256(text.encode()).hexdigest()


def test_files_are_hashed_by_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(range(256)) * 9000)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(bytes(range(256)) * 9000).hexdigest()
