"""Files of anybody: one sentence with the line, whatever stands in them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.schema.cell import parse_eps
from prunecert.bench.schema.suite import load_suite
from prunecert.bench.schema.yamlfile import DEEPEST, LARGEST_WHOLE, MOST_BYTES, Document, load_scalar
from prunecert.errors import UserError
from tests.bench.conftest import SUITE

_LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


def refused(folder: Path, text: str) -> str:
    """Returns what is said of a file, which must be refused at once."""
    path = folder / "x.yaml"
    path.write_text(text)
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        Document(path)
    assert time.monotonic() - began < 10
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    return str(caught.value).removeprefix(str(path))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (_LAUGHS, ", line 1, a4"),
        ("a:\n  - " + "[" * 1000 + "]" * 1000, ", line 2, column 33: the file is refused: it is nested more than 30"),
        ("a: " + "{a: " * 60_000, "more than 30 levels"),
        ("".join(f"{' ' * i}a:\n" for i in range(600)), "more than 30 levels"),
        ("a: &x {b: &y {c: *x}}", "an anchor that holds itself is refused"),
        ("".join(f"a{i}: &a{i} {{b: {f'*a{i - 1}' if i else 1}}}\n" for i in range(60)), "nested more than 30 levels"),
        ("a: [" + "1," * 20_000 + "]", "it holds more than 10,000 values"),
        ("a: " + "x" * MOST_BYTES, f"at most {MOST_BYTES:,} are read"),
        ("a: !!bool maybe", ", line 1, a: the value cannot be read: 'maybe' is refused; it must be true or false."),
        ("a: !!int ''", "is no int"),
        ("a: !!float x", "'x' is no float"),
        ("a: !!timestamp never", "the type 'timestamp' is refused"),
        ("a: !!binary x", "the type 'binary' is refused"),
        ("a: !!python/object:os.system x", "is refused; write a plain value"),
        ("a: !!set {b}", "write a plain mapping"),
        ("a: !!omap [b: 1]", "write a plain list"),
        ("b: 1\na: " + "9" * 400, ", line 2, a: the value cannot be read: a number of 400 characters is refused"),
        ("a: 0x" + "f" * 30, "it must fit into 64 bits"),
        (f"a: {LARGEST_WHOLE + 1}", "it must fit into 64 bits"),
        ("a: .inf", ".inf is refused; it must be a finite number"),
        ("a: .nan", "finite"),
        ("a: 1e999", "finite"),
        ("? [a, b]\n: 1", "a key that is a list or a mapping is refused"),
        ("a: 1\na: 2", ", line 2, a: the key stands here twice"),
        ("a: \x1b[31m", "the character number 3 is refused"),
        ("'a\\e': 1\n\"a\\e[0m\\n::error::\": !!bool x", ", line 2, a\\x1b[0m\\n::error::: the value cannot be read"),
        ("a: [", "is not YAML"),
        ("- a", "must hold a mapping"),
        ("", "must hold a mapping"),
    ],
    ids=range(29),
)
def test_one_sentence_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_pipe_a_device_a_folder_and_long_names_hold_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name in ("pipe.yaml", "zero.yaml"):
        with pytest.raises(UserError, match="no plain file"):
            Document(tmp_path / name)
    for name, said in (
        (".", "is a folder"),
        ("x" * 5000, "longer than the file system"),
        ("a\0b", "no name of a file"),
    ):
        with pytest.raises(UserError, match=said):
            Document(tmp_path / name)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(UserError, match="isn't UTF-8"):
        Document(tmp_path / "latin.yaml")


def test_numbers_are_read_as_yaml_1_2_has_them(tmp_path: Path) -> None:
    texts = "1e-4, 1.5E3, -2e+1, .5e1, 1e3x, 7, 0.5, yes, ~, 2024-01-01, 2/255, 2:4, 1:30.5"
    (tmp_path / "x.yaml").write_text(f"\ufeffa: [{texts}]")
    assert Document(tmp_path / "x.yaml").root.data == {
        "a": [1e-4, 1500.0, -20.0, 5.0, "1e3x", 7, 0.5, True, None, "2024-01-01", "2/255", "2:4", "1:30.5"]
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("3", 3), ("true", True), ("word", "word"), ("'1'", "1"), ("", None), ("[1, a]", [1, "a"])],
)
def test_single_values(text: str, value: object) -> None:
    assert load_scalar(text) == value
    assert type(load_scalar(text)) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2000,
        "!!bool maybe",
        "{a: 1}",
        "[[1]]",
        "9" * 400,
        "1e999",
        "!!python/name:os.system x",
        "a: b: c",
        "010",
        "-007",
    ],
)
def test_single_values_that_are_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        load_scalar(text)
    assert len(str(caught.value)) < 400


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    with contextlib.suppress(UserError):
        assert type(load_scalar(text)) in (type(None), bool, int, float, str, list)


@pytest.mark.parametrize(
    "text",
    ["1e-99999999", "1e-99999999/255", "10**9", "1/" + "9" * 5000, "9" * 400, "1_0/255", "٢/255", "", ".", "1e-100"],
)
def test_radii_that_would_take_the_memory(text: str) -> None:
    with pytest.raises(UserError, match="is refused") as caught:
        parse_eps(text)
    assert len(str(caught.value)) < 300


@given(st.from_regex(r"[0-9]{0,5}(\.[0-9]{0,5})?(e-?[0-9]{1,2})?(/[0-9]{1,3})?", fullmatch=True))
def test_radii_are_read_exactly_or_refused(text: str) -> None:
    try:
        value = parse_eps(text)
    except UserError:
        return
    assert 0 < value <= 1
    assert parse_eps(str(value)) == value


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("compression: [1, 10, 20]", f"compression: {[1 + i / 1000 for i in range(4100)]}"),
        ("compression: [1, 10, 20]", f"compression: {[1 + i / 10 for i in range(90)]}\n    seeds: {list(range(90))}"),
        ("  half: {images: 20}\n", "".join(f"  p{i}: {{images: 3}}\n" for i in range(30))),
    ],
)
def test_a_suite_does_not_multiply_without_end(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(SUITE.replace(old, new, 1))
    with pytest.raises(UserError, match=r"stands? for more than 4,000 networks|profiles are refused"):
        load_suite(str(path))


def test_the_deepest_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: " + "[" * (DEEPEST - 2) + "]" * (DEEPEST - 2))
    Document(tmp_path / "x.yaml")
