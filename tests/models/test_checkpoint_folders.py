from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.models import checkpoint_folders
from prunecert.models.checkpoint_folders import (
    CHECKPOINTS,
    ZOO,
    checkpoint_files,
    default_folder,
    describe_places,
    hidden,
    locate,
    places,
)


@pytest.fixture(name="own")
def _own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one's own, as from a wheel, with two checkpoints, and a zoo with two, one of the same name."""
    monkeypatch.setattr(checkpoint_folders, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(checkpoint_folders, "ZOO", tmp_path / "zoo")
    for folder, names in (("checkpoints", ("a", "b")), ("zoo", ("b", "c"))):
        (tmp_path / folder).mkdir()
        for name in names:
            for suffix in ("safetensors", "json"):
                (tmp_path / folder / f"{name}.{suffix}").touch()
    return tmp_path / "checkpoints"


def test_a_checkout_keeps_its_zoo_and_a_wheel_writes_where_one_stands(tmp_path: Path) -> None:
    assert CHECKPOINTS == ZOO
    assert places(ZOO) == (ZOO,)
    for folder in ("checkout/models", "checkout/prunecert", "site-packages/prunecert/models"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "checkout" / "pyproject.toml").touch()
    link = tmp_path / "checkout" / "prunecert" / "models"
    link.symlink_to("../models")
    assert default_folder(link) == link / "checkpoints"
    assert default_folder(tmp_path / "site-packages" / "prunecert" / "models") == Path("checkpoints")


def test_own_checkpoints_come_before_those_that_ship(own: Path) -> None:
    zoo = own.with_name("zoo")
    assert [locate(own, name).parent for name in "abc"] == [own, own, zoo]
    assert locate(own, "d") == own / "d.safetensors"
    assert checkpoint_files(own) == [own / "a.safetensors", own / "b.safetensors", zoo / "c.safetensors"]
    assert describe_places(own) == f"{own} or among the shipped ones"


def test_half_of_an_own_checkpoint_is_not_replaced_by_a_shipped_one(own: Path) -> None:
    (own / "b.safetensors").unlink()
    assert locate(own, "b") == own / "b.safetensors"


def test_of_two_of_one_name_it_is_said_which_is_taken(own: Path) -> None:
    assert hidden(own, ["a", "c", "d"]) == []
    assert hidden(own, ["a", "b", "b"]) == [f"b: taken from {own}; the package ships checkpoints of the same name."]
    (own / "c.json").touch()
    (line,) = hidden(own, "abc")
    assert line.startswith("b and 1 more: taken from")


def test_another_folder_stands_alone(own: Path, tmp_path: Path) -> None:
    other = tmp_path / "nets"
    assert locate(other, "c") == other / "c.safetensors"
    assert checkpoint_files(other) == []
    assert hidden(other, "bc") == []
    assert checkpoint_files(own.with_name("zoo")) == [own.with_name("zoo") / f"{name}.safetensors" for name in "bc"]


def test_nothing_trained_yet_is_no_reason_to_refuse(own: Path) -> None:
    for file in own.iterdir():
        file.unlink()
    own.rmdir()
    assert [file.stem for file in checkpoint_files(own)] == ["b", "c"]
