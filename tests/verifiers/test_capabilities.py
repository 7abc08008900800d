from __future__ import annotations

import typing

import pytest

from prunecert.verifiers import VERIFIERS, base
from prunecert.verifiers.capabilities import Availability, Capabilities, Norm


def test_the_contract_has_the_same_names() -> None:
    assert (base.Availability, base.Capabilities, base.Norm) == (Availability, Capabilities, Norm)


@pytest.mark.parametrize("name", list(VERIFIERS))
def test_every_verifier_says_what_it_takes_and_what_to_install_where_it_is_not_here(name: str) -> None:
    capabilities, here = VERIFIERS.get(name).capabilities(), VERIFIERS.get(name).availability()
    assert set(capabilities.norms) <= set(typing.get_args(Norm))
    assert capabilities.norms
    # What is handed over as it is has more than a normal form has.
    assert not capabilities.native or capabilities.native - capabilities.operators
    assert bool(here.hint) != here.installed
    assert here.version if here.installed else not here.version
