"""A stranger's network and its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Run = Callable[..., int]
#: What a card says of a `cnn-small` that nobody trained; its name, pruner and command are left.
UNTRAINED: Mapping[str, Any] = {
    "network": "cnn-small",
    "objective": "ibp",
    "eps": "2/255",
    "seed": 0,
    "recipe": {},
    "accuracy": {},
    "measured": "not at all",
    "data_fingerprint": "0" * 64,
    "versions": {},
    "device": "cpu",
    "train_seconds": 0.0,
}


def network(path: Path, *, zeros: int = 5, classes: int = 10, size: int = 32) -> Path:
    """Writes a convolution, a scaling that is no layer, and a linear layer stored the other way round."""
    rng = np.random.default_rng(0)
    conv = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    scale = np.ones((2, 1, 1, 1), dtype=np.float32)
    flat = 2 * (size // 4) ** 2
    linear = rng.normal(size=(flat, classes)).astype(np.float32)
    linear.reshape(-1)[:zeros] = 0
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", ["input", "conv"], ["a"], "first", kernel_shape=[4, 4], strides=[4, 4]),
                helper.make_node("Conv", ["a", "scale"], ["b"], "scaling", kernel_shape=[1, 1], group=2),
                helper.make_node("Relu", ["b"], ["c"]),
                helper.make_node("Flatten", ["c"], ["d"]),
                helper.make_node("Gemm", ["d", "linear"], ["logits"], "last"),
            ],
            "theirs",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, size, size])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])],
            [numpy_helper.from_array(a, n) for a, n in ((conv, "conv"), (scale, "scale"), (linear, "linear"))],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
    )
    onnx.save(model, path)
    return path


CARD = """\
name: my-method
onnx: theirs.onnx
network: their-net
objective: sabr
pruner: their-pruner
eps: 2/255
title: A method <b>of mine</b>
url: https://example.org/paper
"""
