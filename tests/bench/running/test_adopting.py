from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.running.adopting import ForeignNetwork, adopt_ap, adopt_ctrain
from prunecert.errors import UserError
from tests.bench.test_adopt import KEY


def test_what_makes_no_sense_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    foreign = ForeignNetwork(file=tmp_path / "none.pt", sha256="0" * 64, out=tmp_path)
    with pytest.raises(UserError, match="--images 0 is refused"):
        adopt_ctrain(foreign, "cnn5-standardised", "mtl-ibp", "2/255", 0, images=0)
    with pytest.raises(UserError, match="Did you mean 'mtl-ibp'"):
        adopt_ctrain(foreign, "cnn5-standardised", "mtl-ipb", "2/255", 0)


def test_a_checkpoint_is_replaced_on_request_only(tmp_path: Path) -> None:
    foreign = ForeignNetwork(file=tmp_path / "none.pt", sha256="0" * 64, out=tmp_path)
    (tmp_path / "cnn5-standardised_mtl-ibp_eps2_dense_x1_s0.json").touch()
    with pytest.raises(UserError, match="is there already; allowed are --force"):
        adopt_ctrain(foreign, "cnn5-standardised", "mtl-ibp", "2/255", 0)
    forced = ForeignNetwork(file=foreign.file, sha256=foreign.sha256, out=tmp_path, force=True)
    with pytest.raises(UserError, match=r"none\.pt"):
        adopt_ctrain(forced, "cnn5-standardised", "mtl-ibp", "2/255", 0)


def test_a_benchmarks_card_is_replaced_on_request_only(tmp_path: Path) -> None:
    (tmp_path / f"{KEY.lower()}.yaml").touch()
    with pytest.raises(UserError, match="is there already; allowed are --force"):
        adopt_ap(ForeignNetwork(file=tmp_path / "none.pt", sha256="0" * 64, out=tmp_path), KEY)
