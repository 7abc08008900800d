"""What the neurons of a network are called, so that a proof for one network can be read on its compacted neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunecert.verifiers.sparse.arrays import Int32Array, Int64Array
from prunecert.verifiers.sparse.network import Network


@dataclass(frozen=True, eq=False)
class Names:
    """What the neurons of a network are called before compaction.

    Args:
        layout: Neurons of each node.
        original: For each node the place of each neuron, or None where nothing was removed.
    """

    layout: tuple[int, ...]
    original: tuple[Int64Array | None, ...]

    def places(self, nodes: Int64Array, indices: Int64Array) -> Int32Array:
        """Returns the places before compaction of neurons of nodes."""
        result = indices.astype(np.int32)
        for node in np.unique(nodes):
            kept = self.original[node]
            if kept is not None:
                mine = nodes == node
                result[mine] = kept[indices[mine]]
        return result


def names_of(network: Network, onnx: Path) -> Names:
    """Returns a network's names; those of a compacted one from the record that its file carries."""
    from prunecert.compaction import Compaction
    from prunecert.onnx.io import load_model

    model = load_model(onnx)
    record = Compaction.of(model.metadata_props)
    outputs = {item.name or f"number {i}": item.output[0] for i, item in enumerate(model.graph.node)}
    layout, original = [], []
    for node in network.nodes:
        kept = None
        tensor = outputs.get(node.name, "")
        if record is not None and tensor in record.kept:
            mask = record.kept[tensor]
            inner = node.size // max(int(mask.sum()), 1)
            if int(mask.sum()) * inner == node.size:
                kept = record.indices(tensor, inner)
                layout.append(len(mask) * inner)
        if kept is None:
            layout.append(node.size)
        original.append(kept)
    return Names(tuple(layout), tuple(original))
