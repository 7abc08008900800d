"""One pass that turns a network into the normal form; see `prunecert.onnx.normal`."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from prunecert.onnx.normal import Normalised, UnsupportedNetworkError, is_normal

__all__ = ["Normalised", "UnsupportedNetworkError", "is_normal", "normalise"]


def normalise(
    model: onnx.ModelProto, *, output: str | int | None = None, outputs: int | None = None, keep: Collection[str] = ()
) -> Normalised:
    """Rewrites a network into normal form.

    Args:
        model: What `prunecert.onnx.io.load_model` returned; it is not changed.
        output: Name or number of the output that counts, where there are several.
        outputs: How many values the output that counts has (the property's Y's): the first such output is taken.
        keep: Operators that are to stay where they can: ``MaxPool``.

    Raises:
        UserError: The file is damaged.
        UnsupportedNetworkError: A node isn't taken.
    """
    if is_normal(model, keep):
        return Normalised(model, False, None, int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value))
    raise UnsupportedNetworkError("The network is not in normal form; its rewriting is not built yet.")
