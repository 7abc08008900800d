"""Post-training quantisation: an exported network as a QDQ file of int8 weights and uint8 activations.

`onnxruntime.quantization` does it: weights symmetric, a scale for each output channel, so that a pruned weight is an
exact zero; activations uint8 with one static scale each, from the least and the largest value on calibration images;
biases int32. Batch norm is folded before, as in every export. The outputs stay float32: the last layer's sums are made
real and not rounded again, since a tie between two classes' rounded outputs would be a misclassification that no weight
asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from prunecert.errors import UserError
from prunecert.files import replacing
from prunecert.hashing import sha256_file
from prunecert.models import FULL_BITS
from prunecert.models.bits import BitCount, LayerBits, to_kilobytes

FloatImages = npt.NDArray[np.float32]

#: Bits of a quantised weight.
BITS = 8
#: Calibration images that are taken where more are there: extremes settle soon, and each is run once.
CALIBRATION_IMAGES = 500


@dataclass(frozen=True)
class QuantisedInfo:
    """What was written.

    Args:
        path: The QDQ file.
        sha256: Its hash.
        weights: Prunable weights, zeros included.
        kept: Those that are not zero as int8.
        images: Calibration images.
        agreement: Share of them that both networks put into the same class.
    """

    path: Path
    sha256: str
    weights: int
    kept: int
    images: int
    agreement: float

    @property
    def compression(self) -> float:
        """Bits of all weights in float32, over bits times kept weights."""
        return FULL_BITS * self.weights / (BITS * max(self.kept, 1))

    @property
    def kilobytes(self) -> float:
        """Bits times kept weights, in kB (1,000 bytes); what a sparse format adds for places isn't in it."""
        return to_kilobytes(BITS * self.kept)

    def describe(self) -> str:
        """Says what became of the network in one sentence."""
        return (
            f"int8: {self.kept:,} of {self.weights:,} weights kept, {BITS} bits each: {self.kilobytes:.1f} kB, "
            f"{self.compression:.4g}x; the class is that of the float32 network on {self.agreement:.1%} of "
            f"{self.images} calibration images"
        )


def quantise(network: Path, out: Path, images: FloatImages) -> QuantisedInfo:
    """Writes a network's QDQ file and checks it.

    Args:
        network: An export of ours: float32, batch norm folded.
        out: The file to write; replaced as a whole, or left as it was.
        images: Calibration images [n, C, H, W], of the training distribution and not of the test set; n > 0.

    Raises:
        UserError: There are no images, or ones of another shape; or an operator isn't one that stays exact.
        ValueError: The written file fails one of its checks; nothing is left of it.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    from prunecert.onnx.io import load_model
    from prunecert.onnx.quantised_reading import read_steps

    model = load_model(network)
    entry = model.graph.input[0]
    shape = tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim)[1:]
    if not len(images) or images.shape[1:] != shape:
        raise UserError(
            f"Calibration images of shape {list(images.shape)} are refused for {network.name}; needed are one or more "
            f"of {list(shape)}."
        )
    # Without it, onnxruntime asks for a preparation that our exports need none of.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as scratch:
        quantize_static(
            model,
            str(scratch),
            _Images(entry.name, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": False, "WeightSymmetric": True},
        )
        written = _real_outputs(onnx.load(scratch))
        for item in [p for p in written.metadata_props if p.key.startswith("onnx.")]:
            written.metadata_props.remove(item)
        onnx.checker.check_model(written, full_check=True)
        read_steps(written, out.name)
        onnx.save(written, scratch)
        kept = _count(network, written)
        agreement = float((_classes(network, images) == _classes(scratch, images)).mean())
    return QuantisedInfo(out, sha256_file(out), kept[0], kept[1], len(images), agreement)


def is_quantised(path: Path) -> bool:
    """Whether a file rounds activations, as those that `quantise` writes do."""
    return any(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node)


def count_numbers(path: Path) -> BitCount:
    """Counts what the numbers of a quantised export take: int8 weights, and 32 bits for all scales and biases.

    Zero points, a byte for each activation, are left out.

    Args:
        path: What `quantise` has written.
    """
    model = onnx.load(path)
    layers, others = [], 0
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if _is_weight(tensor):
            name = tensor.name.removesuffix("_quantized")
            layers.append(LayerBits(name, BITS, values.size, int(np.count_nonzero(values)), len(values)))
        elif tensor.name.endswith("_bias_quantized") or (tensor.name.endswith("_scale") and values.ndim == 0):
            # Of biases and activations; scales of weights are counted with them, and those of biases follow.
            others += values.size
    return BitCount(tuple(layers), others)


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return tensor.name.endswith("_weight_quantized") and tensor.data_type == onnx.TensorProto.INT8


class _Images:
    """Hands calibration images over one by one, as `onnxruntime.quantization` asks for them."""

    def __init__(self, name: str, images: FloatImages) -> None:
        self._feeds: Iterator[dict[str, FloatImages]] = iter([{name: image[None]} for image in images])

    def get_next(self) -> dict[str, FloatImages] | None:
        """Returns the next image's inputs, or None after the last."""
        return next(self._feeds, None)

    def __iter__(self) -> Iterator[dict[str, FloatImages]]:
        return self._feeds

    def __len__(self) -> int:
        return 0


def _real_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Removes the rounding of the outputs."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    last = makers[graph.output[0].name]
    rounding = makers.get(last.input[0]) if last.op_type == "DequantizeLinear" else None
    if rounding is None or rounding.op_type != "QuantizeLinear":
        return model
    makers[rounding.input[0]].output[0] = graph.output[0].name
    graph.node.remove(last)
    graph.node.remove(rounding)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    del graph.value_info[:]
    return model


def _count(network: Path, written: onnx.ModelProto) -> tuple[int, int]:
    """Returns weights and those that are not zero, having checked that each zero has stayed one."""
    plain = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(network).graph.initializer}
    total = kept = 0
    for tensor in written.graph.initializer:
        name = tensor.name.removesuffix("_quantized")
        if not name.endswith("_weight") or name == tensor.name:
            continue
        whole = numpy_helper.to_array(tensor)
        if whole.dtype != np.int8 or plain[name].shape != whole.shape or bool((whole[plain[name] == 0] != 0).any()):
            raise ValueError(f"{name} was to become int8 with every zero kept")
        total += whole.size
        kept += int(np.count_nonzero(whole))
    if total != sum(array.size for name, array in plain.items() if name.endswith("_weight")):
        raise ValueError("some weights were not quantised")
    return total, kept


def _classes(path: Path, images: FloatImages) -> npt.NDArray[np.int64]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    classes: npt.NDArray[np.int64] = np.array([session.run(None, {name: x[None]})[0].argmax() for x in images])
    return classes


def spread(images: FloatImages, count: int = CALIBRATION_IMAGES) -> FloatImages:
    """Returns so many images, evenly spread over all of them."""
    places = np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(np.int64))
    chosen: FloatImages = images[places]
    return chosen
