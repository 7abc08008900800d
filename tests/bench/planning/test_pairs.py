"""Which networks are compared, in which files, and what is named because it can't be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.pairs import PairPlan, describe_pairs, with_pairs
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.stages import Installed
from prunecert.bench.schema.cell import Protocol
from prunecert.bench.schema.pairs import PairProtocol
from prunecert.models.data import Dataset
from prunecert.onnx.io import identity
from prunecert.verifiers.formats.counterexample import outputs
from tests.bench import pairkit
from tests.bench.timekit import plan
from tests.verifiers import onnxnets

PLAIN = PairProtocol()
TIMEOUTS = {"sparse-pair": 9.0, "sparse-bab": 8.0, "fake-complete": 7.0}


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    for name, net in pairkit.networks().items():
        net.save(folder / f"{name}.onnx")
    dense = pairkit.networks()["dense"]
    # The same inputs and outputs with a linear layer between, and other inputs.
    for name, shape in (("other", dense.shape), ("narrow", (1, 2, 2))):
        onnxnets.linear(folder / f"{name}.onnx", shape, dense.classes)
    return folder


def cells(folder: Path, files: Sequence[tuple[str, str, float]], pair: PairProtocol) -> list[CellPlan]:
    """Returns a plan for each file, pruner and compression."""
    dense = pairkit.networks()["dense"]
    images = pairkit.pixels("test")
    labels, indices = images.labels.astype(np.int64), np.arange(pairkit.IMAGES)
    data = Dataset(images.images, labels, indices, "test", "f" * 64, True, False, "made up", classes=dense.classes)
    plans = []
    for name, pruner, compression in files:
        base, path = plan(2, [], pairkit.IMAGES), folder / f"{name}.onnx"
        cell = replace(base.cell, pruner=pruner, compression=compression)
        export = Export(path, identity(path), 0.0, compression, "c", {})
        protocol = Protocol(images=pairkit.IMAGES, timeouts=TIMEOUTS, pair=pair)
        plans.append(replace(base, cell=cell, export=export, data=data, protocol=protocol))
    return plans


def asked(
    folder: Path, files: Sequence[tuple[str, str, float]], pair: PairProtocol = PLAIN
) -> tuple[list[PairPlan], list[str]]:
    """Returns the pairs, and what is said."""
    lines: list[str] = []
    plans = cells(folder, files, pair)
    networks, pairs = with_pairs(plans, Installed("cpu"), folder, folder / "exports", lines.append)
    described = [one for network in networks for one in network.extra.get("pairs", ())]
    assert described == [pair.describe() for pair in pairs]
    return list(pairs), lines


def test_each_pruned_network_is_compared_with_the_dense_one(folder: Path) -> None:
    (light, heavy), lines = asked(folder, [("dense", "dense", 1.0), ("light", "lwm", 2.0), ("heavy", "hydra", 10.0)])
    assert lines == []
    assert [pair.partner.name == light.partner.name for pair in (light, heavy)] == [True, True]
    assert "dense_x1" in light.partner.name
    assert not light.partner.step
    assert [stage.verifier for stage in light.stages] == ["sparse-pair"]
    # The merged file has the outputs of the first and then of the second.
    image = light.data.images[:1]
    both = [outputs(folder / f"{name}.onnx", image)[0] for name in ("dense", "heavy")]
    assert np.allclose(outputs(heavy.export.path, image)[0], np.concatenate(both))
    (line, _) = describe_pairs([light, heavy])
    assert line.endswith(f"{pairkit.IMAGES} images, class, sparse-pair (9 s)")


def test_the_question_is_about_both_over_the_image_s_box(folder: Path) -> None:
    (pair,), _ = asked(folder, [("dense", "dense", 1.0), ("light", "lwm", 2.0)])
    instance = pair.instance(1, 0)
    assert (instance.classes, instance.label) == (2 * pair.data.classes, None)
    assert instance.onnx_sha256 == identity(pair.export.path)
    assert instance.contains(pair.data.images[1])
    assert pair.asks_all


def test_steps_compare_neighbours_of_one_pruner(folder: Path) -> None:
    files = [
        ("heavy", "lwm", 100.0),
        ("dense", "dense", 1.0),
        ("light", "lwm", 2.0),
        ("heavy", "lwm", 10.0),
        ("light", "hydra", 5.0),
    ]
    pairs, _ = asked(folder, [*files], PairProtocol(steps=True))
    compared = [(pair.cell.pruner, pair.cell.compression, pair.partner.step, pair.partner.path.stem) for pair in pairs]
    assert compared == [
        ("lwm", 100, False, "dense"), ("lwm", 100, True, "heavy"), ("lwm", 2, False, "dense"),
        ("lwm", 10, False, "dense"), ("lwm", 10, True, "light"), ("hydra", 5, False, "dense"),
    ]  # fmt: skip


def test_rounded_weights_are_compared_with_float32(folder: Path) -> None:
    files = [("dense", "dense", 1.0), ("light", "dense", 1.0), ("heavy", "lwm", 10.0), ("light", "lwm", 10.0)]
    plans = cells(folder, files, PairProtocol(steps=True))
    for place in (1, 3):
        plans[place] = replace(plans[place], cell=replace(plans[place].cell, bits=(4,)))
    _, pairs = with_pairs(plans, Installed("cpu"), folder, folder / "exports", pytest.fail)
    compared = [(pair.cell.name.split("_", 3)[3], pair.partner.path.stem, pair.partner.step) for pair in pairs]
    assert compared == [
        ("dense_x1_s0_b4", "dense", False), ("lwm_x10_s0", "dense", False), ("lwm_x10_s0_b4", "dense", False),
        ("lwm_x10_s0_b4", "heavy", True),
    ]  # fmt: skip


def test_what_has_no_dense_network_is_named(folder: Path) -> None:
    pairs, (line,) = asked(folder, [("light", "lwm", 2.0)])
    assert pairs == []
    assert "lwm_x2" in line
    assert "no dense network of its kind is among the cells or in" in line


def test_another_architecture_is_for_other_verifiers_and_the_layer_is_named(folder: Path) -> None:
    files = [("dense", "dense", 1.0), ("other", "lwm", 2.0)]
    pairs, lines = asked(folder, files)
    assert pairs == []
    assert "takes two networks of one architecture; " in lines[0]
    assert "nobody is left who could compare it" in lines[1]
    (pair,), _ = asked(folder, files, PairProtocol(verifiers=("sparse-pair", "sparse-bab")))
    assert [stage.verifier for stage in pair.stages] == ["sparse-bab"]
    assert "architecture" in pair.unsupported["sparse-pair"]


def test_networks_of_other_inputs_are_named(folder: Path) -> None:
    pairs, (line,) = asked(folder, [("dense", "dense", 1.0), ("narrow", "lwm", 2.0)])
    assert pairs == []
    assert "it isn't compared with" in line
    assert "take inputs of the shapes" in line


def test_keys_change_with_what_decides_an_answer(folder: Path) -> None:
    files = [("dense", "dense", 1.0), ("light", "lwm", 2.0)]
    keys = set()
    for pair in (PairProtocol(), PairProtocol(("class:0.5",)), PairProtocol(verifiers=("sparse-bab",))):
        ((one,), _) = asked(folder, files, pair)
        keys |= set(one.keys)
    ((swapped,), _) = asked(folder, [("light", "dense", 1.0), ("dense", "lwm", 2.0)])
    assert len(keys | set(swapped.keys)) == 4
