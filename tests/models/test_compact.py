"""Compaction never changes what a network computes, removes all that it can, and leaves nothing that ONNX refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from prunecert.compaction import METADATA_KEY, Compaction
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models.compact import compact, compact_file
from prunecert.models.compact_export import largest_difference
from tests.models.compact_networks import FAMILIES, Builder, Floats, points, run

PIXELS = (0.0, 1.0)
Domain = tuple[float, float] | None

cases = given(
    family=st.sampled_from(sorted(FAMILIES)),
    seed=st.integers(0, 2**32 - 1),
    zeros=st.sampled_from([0.0, 0.5, 0.8, 0.95]),
    rows=st.sampled_from([0.0, 0.3, 0.7]),
    columns=st.sampled_from([0.0, 0.2, 0.5]),
    domain=st.sampled_from([None, PIXELS]),
    exact=st.booleans(),
)


def shapes(record: Compaction) -> dict[str, tuple[int, ...]]:
    return {layer.name: layer.after for layer in record.layers}


def weights(model: onnx.ModelProto) -> dict[str, Floats]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@cases
def test_outputs_are_equal_to_the_bit(
    family: str, seed: int, zeros: float, rows: float, columns: float, domain: Domain, exact: bool
) -> None:
    rng = np.random.default_rng(seed)
    model = FAMILIES[family](rng, zeros=zeros, rows=rows, columns=columns)
    before = model.SerializeToString()
    small, record = compact(model, domain=domain, exact=exact)
    assert model.SerializeToString() == before
    onnx.checker.check_model(small, full_check=True)
    inputs = points(model, 6, rng) if domain else points(model, 6, rng, -16, 16)
    # The arithmetic is exact, so that a wrong constant at a border, say, can't hide behind a tolerance.
    assert np.array_equal(run(model, inputs), run(small, inputs))
    assert all(0 not in array.shape for array in weights(small).values())
    assert all(a <= b for layer in record.layers for a, b in zip(layer.after, layer.before, strict=True))
    assert record.shrank == (small is not model)
    assert record.masked_sha256 != ""
    # What is left is a fixpoint.
    again = shapes(compact(small, domain=domain, exact=exact)[1])
    assert again == {name: shapes(record)[name] for name in again}


@settings(deadline=None, max_examples=40)
@cases
def test_every_neuron_that_is_left_is_the_masked_networks(
    family: str, seed: int, zeros: float, rows: float, columns: float, domain: Domain, exact: bool
) -> None:
    rng = np.random.default_rng(seed)
    model = FAMILIES[family](rng, zeros=zeros, rows=rows, columns=columns)
    small, record = compact(model, domain=domain, exact=exact)
    inputs = points(model, 3, rng)
    masked = inner(model)
    actual = inner(small)
    for tensor, mask in record.kept.items():
        if record.merged or mask.sum() == 1:
            # A shared constant, or a zero that stands for nothing.
            continue
        a, b = run(exposed(model, tensor), inputs), run(exposed(small, tensor), inputs)
        indices = record.indices(tensor, b[0].size // int(mask.sum()))
        assert indices is not None
        assert np.array_equal(a.reshape(len(a), -1)[:, indices], b.reshape(len(b), -1))
    assert masked.keys() >= actual.keys()


def inner(model: onnx.ModelProto) -> dict[str, str]:
    return {node.output[0]: node.op_type for node in model.graph.node}


def exposed(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """Makes an inner tensor the output."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend([helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None)])
    return probe


@settings(deadline=None, max_examples=40)
@cases
def test_float_weights_differ_by_rounding_only(
    family: str, seed: int, zeros: float, rows: float, columns: float, domain: Domain, exact: bool
) -> None:
    rng = np.random.default_rng(seed)
    model = FAMILIES[family](rng, zeros=zeros, rows=rows, columns=columns)
    noisy(model, rng)
    small, _ = compact(model, domain=domain, exact=exact)
    inputs = rng.random((6, *[d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]))
    a, b = run(model, inputs.astype(np.float32)), run(small, inputs.astype(np.float32))
    scale = max(
        1.0, *(float(np.abs(run(exposed(model, name), inputs.astype(np.float32))).max()) for name in inner(model))
    )
    assert np.abs(a - b).max() <= 1e-5 * scale


def noisy(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Multiplies every float weight by a random factor near 1; zeros stay."""
    for item in model.graph.initializer:
        values = numpy_helper.to_array(item)
        if values.dtype == np.float32:
            factors = rng.uniform(0.5, 1.5, values.shape).astype(np.float32)
            item.CopyFrom(numpy_helper.from_array(values * factors, item.name))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), pad=st.integers(0, 1), stride=st.integers(1, 2))
def test_planted_dead_units_are_all_found(seed: int, pad: int, stride: int) -> None:
    rng = np.random.default_rng(seed)
    builder = Builder(rng, zeros=0, rows=0, columns=0)
    x = builder.relu(builder.conv(builder.start(2, 7, 7), 4, 3, stride, pad))
    x = builder.relu(builder.conv(x, 3, 2, 1, pad))
    x = builder.relu(builder.linear(builder.flatten(x), 5, transB=1))
    model = builder.model(builder.linear(x, 3, transB=1))
    for item in model.graph.initializer:
        # No weight is zero, so that nothing but what is planted can go.
        values = numpy_helper.to_array(item)
        item.CopyFrom(numpy_helper.from_array(np.where(values == 0, np.float32(0.25), values), item.name))
    assert not compact(model)[1].shrank
    arrays = weights(model)
    names = [node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    biases = [node.input[2] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    dead = rng.integers(0, 2, 3)
    for layer in range(3):
        # Without input and with a constant below 0, without output, or only for one that is dead itself.
        places = arrays[names[layer + 1]].shape[1] // arrays[names[layer]].shape[0]
        for _ in range(int(rng.integers(1, 3))):
            row = rng.integers(1, 4, (1, *arrays[names[layer]].shape[1:])).astype(np.float32)
            column = rng.integers(1, 4, (len(arrays[names[layer + 1]]), places, *arrays[names[layer + 1]].shape[2:]))
            bias = np.float32(rng.integers(1, 3))
            if dead[layer]:
                row, bias = np.zeros_like(row), -bias
            else:
                column = np.zeros_like(column)
            arrays[names[layer]] = np.concatenate([arrays[names[layer]], row])
            arrays[biases[layer]] = np.append(arrays[biases[layer]], bias).astype(np.float32)
            arrays[names[layer + 1]] = np.concatenate([arrays[names[layer + 1]], column.astype(np.float32)], axis=1)
    planted = onnx.ModelProto()
    planted.CopyFrom(model)
    for item in planted.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(arrays[item.name], item.name))
    del planted.graph.value_info[:]
    small, record = compact(planted)
    assert record.shrank
    assert {name: array.shape for name, array in weights(small).items()} == {
        name: array.shape for name, array in weights(model).items()
    }
    for name, array in weights(model).items():
        assert np.array_equal(array, weights(small)[name])


def test_files_carry_the_record_and_a_network_that_loses_nothing_stays_the_same_file(tmp_path: Path) -> None:
    builder = Builder(np.random.default_rng(0), zeros=0, rows=0, columns=0)
    dense = builder.model(builder.linear(builder.relu(builder.linear(builder.start(3), 4, transB=1)), 2, transB=1))
    for item in dense.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(item)) + np.float32(0.5), item.name))
    onnx.save(dense, tmp_path / "dense.onnx")
    record = compact_file(tmp_path / "dense.onnx", tmp_path / "same.onnx", domain=PIXELS)
    assert not record.shrank
    assert record.describe() == "nothing to remove"
    assert (tmp_path / "same.onnx").read_bytes() == (tmp_path / "dense.onnx").read_bytes()
    pruned = onnx.load(tmp_path / "dense.onnx")
    values = numpy_helper.to_array(pruned.graph.initializer[0]).copy()
    values[1] = 0
    pruned.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, pruned.graph.initializer[0].name))
    helper.set_model_props(pruned, {"cell": "x", "sparsity": "0.15"})
    onnx.save(pruned, tmp_path / "pruned.onnx")
    first = compact_file(tmp_path / "pruned.onnx", tmp_path / "a.onnx", domain=PIXELS)
    compact_file(tmp_path / "pruned.onnx", tmp_path / "b.onnx", domain=PIXELS)
    assert sha256_file(tmp_path / "a.onnx") == sha256_file(tmp_path / "b.onnx")
    assert first.masked_sha256 == sha256_file(tmp_path / "pruned.onnx")
    properties = {item.key: item.value for item in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert properties.keys() == {"cell", "sparsity", METADATA_KEY}
    assert properties["sparsity"] == "0.15"
    read = Compaction.of(onnx.load(tmp_path / "a.onnx").metadata_props)
    assert read is not None
    assert read.to_json() == first.to_json()
    assert read.kept["v0"].tolist() == [True, False, True, True]
    assert read.domain == PIXELS
    assert Compaction.of(onnx.load(tmp_path / "pruned.onnx").metadata_props) is None
    gap, size = largest_difference(
        tmp_path / "pruned.onnx", tmp_path / "a.onnx", points(pruned, 4, np.random.default_rng(0))
    )
    assert gap <= 1e-6 * size
    assert read.describe() == "20 to 15 weights, 4 to 3 ReLUs"


def test_bad_files_and_domains_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(UserError, match="no ONNX network"):
        compact_file(tmp_path / "junk.onnx", tmp_path / "a.onnx")
    with pytest.raises(UserError, match="can't be read"):
        compact_file(tmp_path / "gone.onnx", tmp_path / "a.onnx")
    builder = Builder(np.random.default_rng(0))
    model = builder.model(builder.linear(builder.start(3), 2))
    for domain in ((1.0, 0.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(UserError, match="domain"):
            compact(model, domain=domain)
