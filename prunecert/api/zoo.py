"""The checkpoints that come with the package, and own ones of the same form, as modules.

Outside of a checkout the own ones in ``checkpoints`` come before those that ship; see `models.checkpoint_folders`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from prunecert.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

#: Files that torch and others pickle.
_FOREIGN = (".pt", ".pth", ".ckpt", ".pkl", ".bin", ".tar", ".h5", ".keras", ".pt2")


def available() -> list[str]:
    """Returns the names of the checkpoints that ship, and of own ones in ``checkpoints``, as `load` takes them.

    Example:
        >>> import prunecert
        >>> "cnn-small_ibp_eps2_lwm_x10_s0" in prunecert.available()
        True
    """
    from prunecert.models.checkpoint_folders import CHECKPOINTS, checkpoint_files

    return [file.stem for file in checkpoint_files(CHECKPOINTS)]


def checkpoint_file(name: str | Path) -> Path:
    """Returns the file of a checkpoint.

    Args:
        name: The name of one that `available` lists, or a path that ends in ``.safetensors`` or ``.json``.

    Raises:
        UserError: There is none.
    """
    from prunecert.models.checkpoint_folders import CHECKPOINTS, hidden, locate

    path = Path(name)
    if path.suffix in (".safetensors", ".json"):
        if not path.is_file():
            raise UserError(f"There is no checkpoint {str(path)!r}; prunecert train writes them.")
        return path.with_suffix(".safetensors")
    if path.suffix.lower() in _FOREIGN:
        raise UserError(
            f"The file {str(path)!r} is refused: {path.suffix} files hold what only the code that wrote them can read; "
            "load it with that code, and pass the module."
        )
    if str(name) not in available():
        raise UserError(
            did_you_mean("checkpoint", str(name), available()) + " A path must end in .safetensors, or .onnx."
        )
    for line in hidden(CHECKPOINTS, [str(name)]):
        warnings.warn(line, stacklevel=3)
    return locate(CHECKPOINTS, str(name))


def load(name: str | Path) -> nn.Module:
    """Returns a checkpoint as a module in evaluation mode, on the CPU, its masks applied.

    Args:
        name: The name of one that `prunecert.available` lists, or the path of another that `prunecert train`
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
