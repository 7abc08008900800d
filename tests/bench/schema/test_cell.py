from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.schema.cell import Cell, Protocol, fitting, parse_bits, parse_eps, read_eps, show_eps
from prunecert.bench.schema.certificates import VERIFIER, Certify
from prunecert.errors import UserError

CELL = Cell("cnn-small", "ibp", Fraction(2, 255), "lwm", 10.0, 0)
RADII = st.fractions(min_value=Fraction(1, 10**6), max_value=1, max_denominator=10**6)


@given(RADII)
def test_a_radius_is_read_as_it_is_shown(eps: Fraction) -> None:
    assert parse_eps(show_eps(eps)) == eps
    assert parse_eps(show_eps(1000 * eps, ball=True), ball=True) == 1000 * eps


def test_radii_of_l2_balls_have_bounds_of_their_own_and_are_no_grey_levels() -> None:
    cell = Cell("cnn-small", "ibp", Fraction(2), "lwm", 10.0, 0, trained_eps=Fraction(51, 255), ball=True)
    assert (cell.to_json()["eps"], cell.to_json()["trained_eps"]) == ("2", "51/255")
    for text in ("0", "-1", "1000.5", "1e99"):
        with pytest.raises(UserError, match=r"of an l2 ball must be above 0 and at most 1,000"):
            parse_eps(text, ball=True)


def test_radii_are_read_as_yaml_has_them_where_they_are_exact() -> None:
    assert (read_eps(1), read_eps("1"), read_eps(3, ball=True)) == tuple(map(Fraction, (1, 1, 3)))
    with pytest.raises(UserError, match=r"^Radius 0\.1 is refused; write it as text, '0\.1', or as a fraction, e\.g\."):
        read_eps(0.1)
    with pytest.raises(UserError, match="Radius '0' is refused; it must be above 0"):
        read_eps(0)
    for value in (True, None, [1]):
        with pytest.raises(UserError, match="write it as a fraction"):
            read_eps(value)


@pytest.mark.parametrize("text", ["0", "-1/255", "256/255", "1.5", "1e-99999999", "1/0", "two", "", "1/" + "9" * 45])
def test_other_radii_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"Radius .* is refused"):
        parse_eps(text)


def test_names_have_a_family_and_a_member() -> None:
    assert (CELL.family, CELL.member, CELL.name) == (
        "cnn-small_ibp_eps2",
        "lwm_x10_s0",
        "cnn-small_ibp_eps2_lwm_x10_s0",
    )
    noisy = Cell("cnn-small", "smoothing", Fraction(1, 4), "dense", 1.0, 3)
    assert (noisy.family, noisy.member, noisy.norm) == ("cnn-small_smoothing_sigma0.25", "dense_x1_s3", "l2")
    assert "norm" not in CELL.to_json()
    assert noisy.to_json()["norm"] == "l2"


@given(st.floats(1, 1000))
def test_sparsity_and_compression_say_the_same(compression: float) -> None:
    cell = Cell("cnn-small", "ibp", Fraction(2, 255), "lwm", compression, 0)
    assert 0 <= cell.sparsity < 1
    assert (1 - cell.sparsity) * compression == pytest.approx(1)


NAMES = ["cnn-small_ibp_eps2_dense_x1_s0", "cnn-small_ibp_eps2_lwm_x10_s0", "vgg16_pgd_eps8_dense_x1_s0"]


def test_patterns_choose_in_the_order_of_the_names() -> None:
    assert fitting(NAMES, "vgg*, *dense*", "x") == [NAMES[0], NAMES[2]]
    assert fitting(iter(NAMES), "*", "x") == NAMES
    with pytest.raises(UserError, match="--cells is empty"):
        fitting(NAMES, " ,", "suite 's'")
    with pytest.raises(UserError, match=r"Unknown cell 'cnn-smal_\*' of suite 's'"):
        fitting(NAMES, "*dense*,cnn-smal_*", "suite 's'")


def test_a_protocol_is_narrowed_without_losing_its_kind() -> None:
    protocol = Protocol(
        cascade=("ibp", "pgd", "neuralsat"),
        cross_check=("ibp", "pgd"),
        timeouts={"ibp": 1.0, "pgd": 1.0, "neuralsat": 9.0},
        certify=Certify(sigma=0.5, images=20),
    )
    fewer = protocol.only(("neuralsat", "ibp"))
    assert (fewer.cascade, fewer.cross_check, fewer.certify) == (("neuralsat", "ibp"), ("ibp",), None)
    assert protocol.only((VERIFIER,)).certify == protocol.certify
    first = protocol.first(7)
    assert first.certify is not None
    assert (first.images, first.certify.images) == (7, 7)
    # A cell that is only attacked stays so, whatever verifiers are named.
    attacked = Protocol(cascade=("pgd",), timeouts={"pgd": 1.0}, note="attack only")
    assert attacked.only(("pgd", "neuralsat")).cascade == ("pgd",)
    data = protocol.to_json()
    assert data["cascade"] == ["ibp", "pgd", "neuralsat"]
    assert "timing" not in data


def test_bits_of_weights_are_part_of_the_name_and_not_of_the_checkpoint() -> None:
    cell = Cell("cnn-small", "ibp", Fraction(2, 255), "lwm", 10.0, 0, bits=(8, 4, 4, 6))
    assert cell.name == "cnn-small_ibp_eps2_lwm_x10_s0_b8-4-4-6"
    assert cell.as_trained.name == "cnn-small_ibp_eps2_lwm_x10_s0"
    assert cell.network_label == cell.to_json()["network"] == "cnn-small 8/4/4/6-bit"
    assert cell.to_json()["bits"] == [8, 4, 4, 6]
    assert "bits" not in cell.as_trained.to_json()
    assert cell.as_trained.network_label == "cnn-small"


def test_int8_networks_have_cells_of_their_own_and_no_checkpoint() -> None:
    cell = Cell("cnn-small", "ibp", Fraction(2, 255), "lwm", 10.0, 0, int8=True)
    assert cell.name == "cnn-small_ibp_eps2_lwm_x10_s0_int8"
    assert cell.as_trained == replace(cell, int8=False)
    assert cell.network_label == cell.to_json()["network"] == "cnn-small int8"
    assert cell.to_json()["int8"] is True
    assert cell.rounded
    assert not cell.as_trained.rounded
    assert "int8" not in cell.as_trained.to_json()


def test_thirty_two_bits_stand_alone() -> None:
    assert parse_bits("32") == parse_bits(32) == ()
    with pytest.raises(
        UserError, match=r"each must be within 2 and 8 \(32, for float32, stands alone, for all layers\)"
    ):
        parse_bits("8/4/4/32")


@pytest.mark.parametrize("value", [True, 0, 1, 9, 31, -8, 8.0, "", "8/", "8/9", "8,4", "/", "8/32", "9" * 99])
def test_bits_that_cannot_be_are_refused(value: object) -> None:
    with pytest.raises(UserError, match="are refused; "):
        parse_bits(value)
