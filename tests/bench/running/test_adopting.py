from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.running.adopting import ForeignNetwork, adopt_ap, adopt_ctrain, name_of_import
from prunecert.bench.schema.cell import Cell, parse_eps
from prunecert.bench.schema.own import OwnCell, OwnNetwork
from prunecert.errors import UserError
from prunecert.models import DENSE
from tests.bench.test_adopt import KEY


def test_what_makes_no_sense_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    foreign = ForeignNetwork(file=tmp_path / "none.pt", sha256="0" * 64, out=tmp_path)
    with pytest.raises(UserError, match="--images 0 is refused"):
        adopt_ctrain(foreign, "cnn5-standardised", "mtl-ibp", "2/255", 0, images=0)
    with pytest.raises(UserError, match="Did you mean 'mtl-ibp'"):
        adopt_ctrain(foreign, "cnn5-standardised", "mtl-ipb", "2/255", 0)


def test_a_checkpoint_is_replaced_on_request_only(tmp_path: Path) -> None:
    foreign = ForeignNetwork(file=tmp_path / "none.pt", sha256="0" * 64, out=tmp_path)
    (tmp_path / "cnn5-standardised_mtl-ibp_eps2_imported_s0.json").touch()
    with pytest.raises(UserError, match="is there already; allowed are --force"):
        adopt_ctrain(foreign, "cnn5-standardised", "mtl-ibp", "2/255", 0)
    forced = ForeignNetwork(file=foreign.file, sha256=foreign.sha256, out=tmp_path, force=True)
    with pytest.raises(UserError, match=r"none\.pt"):
        adopt_ctrain(forced, "cnn5-standardised", "mtl-ibp", "2/255", 0)


@given(st.sampled_from(["cnn5", "my_nets.own"]), st.sampled_from(["ibp", "a_b"]), st.integers(0, 9), st.integers(0, 9))
def test_no_cell_of_a_suite_can_have_an_imports_name(network: str, objective: str, seed: int, other: int) -> None:
    """Whatever the pruner's name, which may come from a module and so be any Python name."""
    radius = parse_eps("2/255")
    name = name_of_import(Cell(network, objective, radius, DENSE, 1.0, seed))
    source = OwnNetwork("onnx", "a.onnx", Path())
    for pruner in ("dense", "imported", "own:imported", "m:imported_s0", "imported s0"):
        for options in ({}, {"bits": (8,)}, {"int8": True}, {"trained_eps": radius}):
            cell = Cell(network, objective, radius, pruner, 1.0, other, **options)
            assert cell.name != name
        assert OwnCell("cnn5", "mtl-ibp", radius, pruner, 1.0, other, source).name != name


def test_a_benchmarks_card_is_replaced_on_request_only(tmp_path: Path) -> None:
    (tmp_path / f"{KEY.lower()}.yaml").touch()
    with pytest.raises(UserError, match="is there already; allowed are --force"):
        adopt_ap(ForeignNetwork(file=tmp_path / "none.pt", sha256="0" * 64, out=tmp_path), KEY)
