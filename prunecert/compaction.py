"""What compaction took from a network: written into the shrunk ONNX file, read by whoever needs the old indices."""

from __future__ import annotations

import base64
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.hashing import canonical_json
from prunecert.jsontext import parse_json

#: Key of the record in an ONNX file's ``metadata_props``.
METADATA_KEY = "compaction"
SCHEMA_VERSION = 1
BoolArray = npt.NDArray[np.bool_]


class Mode(enum.StrEnum):
    """How much is removed from an exported network before it is verified."""

    #: Nothing: the network as masked.
    OFF = "off"
    #: All that does nothing for inputs in [0, 1]; constants are folded into later biases.
    PIXELS = "pixels"
    #: All that does nothing whatever the input, such as a point with noise on it.
    ALL_INPUTS = "all-inputs"
    #: As `PIXELS`, but no constant is folded except 0, so that nothing is rounded.
    EXACT = "exact"

    @property
    def domain(self) -> tuple[float, float] | None:
        """Inputs for which the outputs must agree; None for all."""
        return (0.0, 1.0) if self in (Mode.PIXELS, Mode.EXACT) else None


@dataclass(frozen=True)
class LayerChange:
    """A layer's shape before and after.

    Args:
        name: The node's name, or its output's where it has none.
        operator: ``Conv``, ``Gemm`` or ``MatMul``.
        before: Shape of its weights, ``[outputs, inputs, ...]``.
        after: Likewise, in the shrunk network.
    """

    name: str
    operator: str
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Compaction:
    """What was done to a network, and which of its channels are left.

    Args:
        masked_sha256: Hash of the ONNX file before, with the masks multiplied in.
        domain: Inputs for which the two networks agree: (lowest, highest) of every value; None for all inputs.
        exact: Whether only zeros were folded, so that nothing was rounded.
        layers: The convolutional and linear layers in the order of the graph.
        kept: For each tensor that lost channels, by name, which of them are left: one truth value for each channel
            of the masked network's tensor (for each unit where it is flat and no convolution's).
        relus: ReLU neurons before and after.
        folded: Constants other than 0 that were added to later biases.
        merged: Constant channels that one shared channel stands for, because the layer after them pads with zeros.

    Of four channels of two neurons each, the second and the fourth are left:

    >>> change = LayerChange("conv", "Conv", (4, 3, 1, 1), (2, 3, 1, 1))
    >>> record = Compaction("ab" * 32, (0.0, 1.0), True, (change,), {"h": np.array([False, True, False, True])}, (8, 4))
    >>> record.indices("h", inner=2)
    array([2, 3, 6, 7])
    >>> record.describe()
    '12 to 6 weights, 8 to 4 ReLUs'
    >>> Compaction.load(record.dump()).weights
    (12, 6)
    """

    masked_sha256: str
    domain: tuple[float, float] | None
    exact: bool
    layers: tuple[LayerChange, ...]
    kept: Mapping[str, BoolArray] = field(default_factory=dict)
    relus: tuple[int, int] = (0, 0)
    folded: int = 0
    merged: int = 0

    @property
    def shrank(self) -> bool:
        """Whether anything was removed."""
        return any(layer.before != layer.after for layer in self.layers)

    @property
    def weights(self) -> tuple[int, int]:
        """Weights before and after, zeros included."""
        before, after = (
            sum(int(np.prod(shape)) for shape in shapes)
            for shapes in ([item.before for item in self.layers], [item.after for item in self.layers])
        )
        return before, after

    def indices(self, tensor: str, inner: int = 1) -> npt.NDArray[np.int64] | None:
        """Returns, for each neuron of a shrunk tensor in C order, the index of that neuron in the masked network.

        Args:
            tensor: Its name.
            inner: Neurons of one channel: height times width; 1 for a linear layer.

        Returns:
            Indices, ascending, or None for a tensor that lost nothing.
        """
        if tensor not in self.kept:
            return None
        channels = np.flatnonzero(self.kept[tensor])
        return (channels[:, None] * inner + np.arange(inner)).reshape(-1)

    def to_json(self) -> dict[str, Any]:
        """Returns plain data; tensors that keep the same channels share one bit mask, base64 of `numpy.packbits`."""
        groups: dict[tuple[int, str], list[str]] = {}
        for tensor, mask in self.kept.items():
            bits = base64.b64encode(np.packbits(mask).tobytes()).decode()
            groups.setdefault((len(mask), bits), []).append(tensor)
        return {
            "schema_version": SCHEMA_VERSION,
            "masked_sha256": self.masked_sha256,
            "domain": None if self.domain is None else list(self.domain),
            "exact": self.exact,
            "layers": [
                {"name": i.name, "operator": i.operator, "before": list(i.before), "after": list(i.after)}
                for i in self.layers
            ],
            "kept": [
                {"channels": channels, "bits": bits, "tensors": tensors} for (channels, bits), tensors in groups.items()
            ],
            "relus": list(self.relus),
            "folded": self.folded,
            "merged": self.merged,
        }

    def summary(self) -> dict[str, Any]:
        """Returns `to_json` without the bit masks, for result files; the ONNX file has them."""
        return {key: value for key, value in self.to_json().items() if key != "kept"}

    def dump(self) -> str:
        """Returns the record as the text that goes into ``metadata_props``."""
        return canonical_json(self.to_json())

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Compaction:
        """Reads what `to_json` returned.

        Raises:
            UserError: It is of a newer schema, or damaged.
        """
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"The record of a compacted network is of schema version {version!r}; this program reads "
                f"{SCHEMA_VERSION}: upgrade prunecert, or export the network again."
            )
        try:
            kept = {}
            for group in data["kept"]:
                bits = np.frombuffer(base64.b64decode(group["bits"], validate=True), dtype=np.uint8)
                mask = np.unpackbits(bits, count=int(group["channels"])).astype(bool)
                kept.update(dict.fromkeys(map(str, group["tensors"]), mask))
            domain = data["domain"]
            return cls(
                str(data["masked_sha256"]),
                None if domain is None else (float(domain[0]), float(domain[1])),
                bool(data["exact"]),
                tuple(
                    LayerChange(str(i["name"]), str(i["operator"]), tuple(i["before"]), tuple(i["after"]))
                    for i in data["layers"]
                ),
                kept,
                (int(data["relus"][0]), int(data["relus"][1])),
                int(data["folded"]),
                int(data["merged"]),
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
            raise UserError(f"The record of a compacted network is damaged ({error!r}); export it again.") from error

    @classmethod
    def load(cls, text: str) -> Compaction:
        """Reads what `dump` returned; see `from_json` for errors."""
        try:
            data = parse_json(text.encode())
        except ValueError as error:
            raise UserError(f"The record of a compacted network is damaged ({error}); export it again.") from error
        if not isinstance(data, dict):
            raise UserError("The record of a compacted network is damaged (no object); export it again.")
        return cls.from_json(data)

    @classmethod
    def of(cls, properties: Iterable[Any]) -> Compaction | None:
        """Returns the record among an ONNX model's ``metadata_props``, or None for a network that is not shrunk."""
        for item in properties:
            if item.key == METADATA_KEY:
                return cls.load(item.value)
        return None

    def describe(self) -> str:
        """Returns one line: what shrank to what."""
        before, after = self.weights
        if not self.shrank:
            return "nothing to remove"
        return f"{before:,} to {after:,} weights, {self.relus[0]:,} to {self.relus[1]:,} ReLUs"
