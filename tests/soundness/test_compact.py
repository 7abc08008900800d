"""No verdict changes by compaction: exact margins of masked and compact networks, by MILP, on tiny pruned networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from prunecert.compaction import Compaction, Mode
from prunecert.hashing import sha256_file
from prunecert.models.compact import compact_file
from prunecert.verifiers.base import Instance, Status
from prunecert.verifiers.formats.counterexample import replay
from tests.soundness.networks import Network
from tests.soundness.oracle import evaluated, exact_margin
from tests.soundness.questions import Question

# All questions' exact margins are needed, which take longest.
pytestmark = pytest.mark.slow

_FAMILIES = ("fc-pruned", "fc-dead-units", "fc-negative-biases", "conv-pruned", "skip-pruned", "conv-skip-pruned")
#: HiGHS encloses a margin to about this.
_SOLVER = 1e-5
#: One in so many questions is put to the solver once more.
_SHARE = 6


def read(path: Path, name: str) -> Network:
    """Reads an ONNX file of Conv, Gemm, Relu, Flatten and Add into the oracle's form."""
    model = onnx.load(path)
    constants = {item.name: numpy_helper.to_array(item).astype(np.float64) for item in model.graph.initializer}
    entry = model.graph.input[0]
    net = Network(name, tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)[1:])
    places = {entry.name: 0}
    for node in model.graph.node:
        source = places[node.input[0]]
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        match node.op_type:
            case "Conv":
                weight, bias = (constants[key] for key in node.input[1:])
                place = net.conv(source, weight, bias, attributes["strides"][0], attributes["pads"][0])
            case "Gemm":
                assert attributes["transB"] == 1
                place = net.gemm(source, *(constants[key] for key in node.input[1:]))
            case "Relu":
                place = net.relu(source)
            case "Flatten":
                place = net.flatten(source)
            case "Add":
                place = net.add(source, places[node.input[1]])
            case other:
                raise AssertionError(f"the tests' networks have no {other}")
        places[node.output[0]] = place
    return net


@pytest.fixture(scope="module", params=[Mode.PIXELS, Mode.EXACT])
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


@pytest.fixture(scope="module")
def pruned(questions: tuple[Question, ...]) -> list[Question]:
    return [question for question in questions if question.net.name.startswith(_FAMILIES)]


@pytest.fixture(scope="module")
def compacted(
    mode: Mode, pruned: list[Question], networks: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Network, Compaction]]:
    """By network: the compact file, the same in the oracle's form, and what was removed."""
    folder = tmp_path_factory.mktemp(f"compact-{mode}")
    compacts = {}
    for name in sorted({question.net.name for question in pruned}):
        path = folder / f"{name}.onnx"
        record = compact_file(networks[name], path, domain=mode.domain, exact=mode is Mode.EXACT)
        compacts[name] = (path, read(path, name), record)
    return compacts


def test_most_of_the_networks_lose_something(compacted: dict[str, tuple[Path, Network, Compaction]]) -> None:
    shrunk = [record for _, _, record in compacted.values() if record.shrank]
    assert len(shrunk) >= 10
    assert len(shrunk) > len(compacted) / 2


def test_the_exact_margin_is_the_same(
    mode: Mode, pruned: list[Question], compacted: dict[str, tuple[Path, Network, Compaction]]
) -> None:
    sample = [question for question in pruned if compacted[question.net.name][2].shrank][::_SHARE]
    assert len(sample) >= 20
    truths = set()
    for question in sample:
        net = compacted[question.net.name][1]
        corners = question.lower.astype(np.float64), question.upper.astype(np.float64)
        margin = exact_margin(net, *corners, question.spec)
        # Nothing is rounded in the exact mode; otherwise biases are, which is covered by the margin's own tolerance.
        room = _SOLVER if mode is Mode.EXACT else _SOLVER + question.tolerance
        assert abs(margin.high - question.margin.high) <= room, question.name
        assert abs(margin.low - question.margin.low) <= room, question.name
        truths.add(question.truth)
    assert {Status.SAT, Status.UNSAT} <= truths


def test_what_breaks_one_breaks_the_other(
    pruned: list[Question],
    networks: Mapping[str, Path],
    compacted: dict[str, tuple[Path, Network, Compaction]],
) -> None:
    checked = 0
    for question in pruned:
        path, net, record = compacted[question.net.name]
        if question.truth is not Status.SAT or question.structural or not record.shrank:
            continue
        on_masked = question.instance(networks[question.net.name])
        on_compact = Instance(**{**vars(on_masked), "onnx": path, "onnx_sha256": sha256_file(path)})
        point = question.margin.point.astype(np.float32).reshape(question.net.shape)
        for instance in (on_masked, on_compact):
            assert replay(instance, point)[0].ok, question.name
        assert evaluated(net, question.spec, question.margin.point)[0] <= 0
        checked += 1
    assert checked >= 50


def test_a_network_that_is_not_the_same_would_be_noticed(
    mode: Mode, pruned: list[Question], compacted: dict[str, tuple[Path, Network, Compaction]]
) -> None:
    question = next(q for q in pruned if compacted[q.net.name][2].shrank)
    path, _, _ = compacted[question.net.name]
    model = onnx.load(path)
    bias = numpy_helper.to_array(model.graph.initializer[1]).copy()
    bias += np.float32(0.05)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(bias, model.graph.initializer[1].name))
    wrong = path.with_name("wrong.onnx")
    onnx.save(model, wrong)
    corners = question.lower.astype(np.float64), question.upper.astype(np.float64)
    margin = exact_margin(read(wrong, "wrong"), *corners, question.spec)
    assert abs(margin.high - question.margin.high) > _SOLVER + question.tolerance
