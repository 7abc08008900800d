"""The worker and networks: what can't be read answers for itself alone; and starts that are made beforehand."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecert.onnx.io import identity
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Status
from prunecert.verifiers.formats.support import network_info
from prunecert.verifiers.process.worker import Worker, prepare_verifiers
from tests.verifiers import onnxnets
from tests.verifiers.process.test_reading import build, layers, perceptron, question

for _name, _class in [
    ("faulty", "Faulty"),
    ("faulty-batch", "FaultyBatch"),
    ("faulty-start", "Unstartable"),
    ("faulty-cold", "Cold"),
]:
    VERIFIERS.register(_name, f"tests.verifiers.faulty:{_class}")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnxnets.linear(tmp_path_factory.mktemp("worker") / "net.onnx")


def fine(network: Path, count: int) -> list[Instance]:
    return [onnxnets.instance(network, 0.01, name="fine", timeout=10.0)] * count


@pytest.mark.slow
def test_a_process_may_start_while_its_caller_does_something_else(network: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with Worker("faulty", threads=1) as subject:
        subject.start_ahead()
        assert subject._ahead is not None
        subject._ahead.join()
        pid = subject.pid
        assert pid is not None
        (verdict,) = subject.verify(fine(network, 1))
        assert subject.pid == pid
    assert verdict.status is Status.UNKNOWN
    hasty = Worker("faulty", threads=1)
    hasty.start_ahead()
    hasty.close()
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.slow
def test_what_takes_long_once_is_not_done_ahead(network: Path, cold: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A caller that finds no network in its file would have waited for nothing."""
    with Worker("faulty-cold", threads=1) as subject:
        subject.start_ahead()
        assert subject._ahead is not None
        subject._ahead.join()
        assert (subject.pid, cold.exists(), capsys.readouterr().err) == (None, False, "")
        (verdict,) = subject.verify(fine(network, 1))
    assert (verdict.status, cold.exists()) == (Status.UNKNOWN, True)
    assert verdict.times.start_s > 1
    assert "cooking" in capsys.readouterr().err


@pytest.mark.slow
def test_it_is_done_beforehand_where_it_is_due(network: Path, cold: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_verifiers(["faulty", "faulty-cold"])
    assert cold.exists()
    assert "cooking" in capsys.readouterr().err
    with Worker("faulty-cold", threads=1, start_limit_s=60) as subject:
        subject.prepare()
        assert subject.pid is None, "nothing is due any more"
        (verdict,) = subject.verify(fine(network, 1))
    assert verdict.status is Status.UNKNOWN
    assert not capsys.readouterr().err


def loop(path: Path) -> Path:
    """A network that never ends: a loop without a limit, round nothing."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["c"], ["c2"]),
            helper.make_node("Identity", ["v"], ["v2"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, [1, 3]),
        ],
    )
    nodes = [*perceptron("z"), helper.make_node("Loop", ["", "on", "z"], ["y"], body=body)]
    return build(path, nodes, {**layers(np.random.default_rng(0)), "on": np.array(True)})


def padded_to_19_gb(path: Path) -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[20000] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    constants = {"w": np.ones((3, 1, 2, 2), dtype=np.float32)}
    return build(path, nodes, constants, (1, 1, 2, 2))


def huge_constant(path: Path) -> Path:
    nodes = [
        *perceptron("z"),
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["z", "sum"], ["y"]),
    ]
    return build(path, nodes, {**layers(np.random.default_rng(0)), "size": np.array([40000, 40000])})


def dropout(path: Path) -> Path:
    nodes = [*perceptron("z"), helper.make_node("Dropout", ["z", "ratio", "on"], ["y"])]
    constants = {"ratio": np.array(0.5, np.float32), "on": np.array(True)}
    return build(path, nodes, {**layers(np.random.default_rng(0)), **constants})


def impossible_reshape(path: Path) -> Path:
    nodes = [*perceptron("z"), helper.make_node("Reshape", ["z", "to"], ["y"])]
    return build(path, nodes, {**layers(np.random.default_rng(0)), "to": np.array([1, 5])})


def empty_bias(path: Path) -> Path:
    return build(path, perceptron(), {**layers(np.random.default_rng(0)), "b2": np.zeros(0, np.float32)})


@pytest.mark.slow
@pytest.mark.parametrize("make", [loop, padded_to_19_gb, huge_constant, dropout, impossible_reshape, empty_bias])
def test_a_bad_network_is_one_sentence_and_stops_no_other(make: object, tmp_path: Path) -> None:
    assert callable(make)
    good = build(tmp_path / "good.onnx", perceptron(), layers(np.random.default_rng(0)))
    bad = make(tmp_path / "bad.onnx")
    shape = network_info(bad).sample_shape
    instances = [question(good), question(bad, shape), question(good)]
    with Worker("faulty", threads=1) as subject:
        first, broken, last = subject.verify([replace(item, name="fine") for item in instances])
    assert broken.status in (Status.UNSUPPORTED, Status.ERROR)
    assert len(broken.detail.splitlines()) == 1
    assert "Traceback" not in broken.detail + broken.log_tail
    assert broken.times.wall_s < 30
    assert (broken.peak_memory_mb or 0) < 2500
    # The faulty verifier takes no ReLU, which the others have.
    assert first.status is last.status is Status.UNSUPPORTED
    assert "doesn't take the operator Relu" in first.detail


def test_a_network_that_went_is_an_error_of_its_own(network: Path, tmp_path: Path) -> None:
    gone, other = (Path(shutil.copy(network, tmp_path / name)) for name in ("gone.onnx", "other.onnx"))
    instances = [*fine(network, 1), *fine(gone, 1), *fine(other, 1)]
    gone.unlink()
    onnxnets.linear(other, seed=5)
    with Worker("faulty", threads=1) as subject:
        verdicts = subject.verify(instances)
    assert [verdict.status for verdict in verdicts] == [Status.UNKNOWN, Status.ERROR, Status.ERROR]
    assert "can't be read" in verdicts[1].detail
    assert "was planned" in verdicts[2].detail


def external(folder: Path, seed: int) -> Path:
    """The same graph each time; the weights lie beside it."""
    folder.mkdir()
    path = build(folder / "net.onnx", perceptron(), layers(np.random.default_rng(seed)))
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    return path


def test_networks_with_the_same_graph_and_other_weights_are_others(tmp_path: Path) -> None:
    first, second = (external(tmp_path / name, seed) for seed, name in enumerate("ab"))
    assert first.read_bytes() == second.read_bytes()
    assert network_info(first).sha256 != network_info(second).sha256
    instance = question(first)
    with Worker("faulty", threads=1) as subject:
        swapped = replace(instance, onnx=second, name="fine")
        (verdict,) = subject.verify([swapped])
    assert verdict.status is Status.ERROR
    assert "was planned" in verdict.detail
    # The weights alone are replaced under the same name.
    before = network_info(first).sha256
    shutil.copy(second.with_name("net.onnx.data"), first.with_name("net.onnx.data"))
    assert identity(first) == network_info(second).sha256 != before


def test_a_record_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    from prunecert.compaction import METADATA_KEY
    from prunecert.errors import UserError

    path = build(tmp_path / "n.onnx", perceptron(), layers(np.random.default_rng(0)))
    model = onnx.load(str(path))
    model.metadata_props.add(key=METADATA_KEY, value="[" * 100_000)
    onnx.save(model, str(path))
    with pytest.raises(UserError, match="damaged"):
        network_info(path)


@pytest.mark.slow
def test_sparse_initialisers_are_read(tmp_path: Path) -> None:
    """What onnxruntime's own script makes of pruned weights."""
    constants = layers(np.random.default_rng(0))
    weight = constants.pop("w1")
    path = build(tmp_path / "n.onnx", perceptron(), constants)
    model = onnx.load(str(path))
    values = numpy_helper.from_array(weight.reshape(-1), "w1")
    indices = numpy_helper.from_array(np.arange(weight.size), "w1_indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, weight.shape))
    onnx.save(model, str(path))
    dense = build(tmp_path / "d.onnx", perceptron(), {**constants, "w1": weight})
    with Worker("sparse-ibp", threads=1) as subject:
        verdicts = subject.verify([question(path), question(dense)])
    assert verdicts[0].bounds == pytest.approx(verdicts[1].bounds, rel=1e-5)
