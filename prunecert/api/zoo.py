"""The checkpoints that come with the package, and own ones of the same form, as modules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prunecert.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import nn


def available() -> list[str]:
    """Returns the names of the shipped checkpoints, as `load` takes them.

    Example:
        >>> import prunecert
        >>> "cnn-small_ibp_eps2_lwm_x10_s0" in prunecert.available()
        True
    """
    from prunecert.models.checkpoint import ZOO

    return sorted(file.stem for file in ZOO.glob("*.safetensors"))


def checkpoint_file(name: str | Path) -> Path:
    """Returns the file of a checkpoint.

    Args:
        name: The name of a shipped one, or a path that ends in ``.safetensors`` or ``.json``.

    Raises:
        UserError: There is none.
    """
    from prunecert.models.checkpoint import ZOO

    path = Path(name)
    if path.suffix in (".safetensors", ".json"):
        if not path.is_file():
            raise UserError(f"There is no checkpoint {str(path)!r}; bench.train writes them.")
        return path.with_suffix(".safetensors")
    if str(name) not in available():
        raise UserError(
            did_you_mean("checkpoint", str(name), available()) + " A path must end in .safetensors, or .onnx."
        )
    return ZOO / f"{name}.safetensors"


def load(name: str | Path) -> nn.Module:
    """Returns a checkpoint as a module in evaluation mode, on the CPU, its masks applied.

    Args:
        name: The name of a shipped one (`prunecert.available` lists them), or the path of another that `bench.train`
            has written.

    Example:
        >>> import prunecert
        >>> net = prunecert.load("cnn-small_ibp_eps2_lwm_x10_s0")
        >>> sum(int((p == 0).sum()) for p in net.parameters() if p.ndim > 1)
        193284

    Raises:
        UserError: There is no such checkpoint, or it is damaged.
    """
    from prunecert.models.checkpoint import load_model

    return load_model(checkpoint_file(name))[0]
