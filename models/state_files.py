"""Foreign checkpoints: state dictionaries that ``torch.save`` wrote, whatever their tensors are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunecert.errors import UserError


def read_tensors(file: Path, keys: Sequence[str], *, unlike: str, without: str) -> list[tuple[str, Tensor]]:
    """Reads a state dictionary without running any code of the file.

    Args:
        file: What ``torch.save`` wrote.
        keys: Under which of these the dictionary may stand in another, the outermost first.
        unlike: The end of the sentence about a file that can't be read, after "without other objects".
        without: The end of the sentence about a file that holds none, after "no state dictionary of tensors".

    Returns:
        Names and tensors in the file's order, as they are there.

    Raises:
        UserError: It can't be read, or holds something else.
    """
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"The file {str(file)!r} cannot be read ({type(error).__name__}); it must be a state dictionary of tensors "
            f"as torch.save writes it, without other objects{unlike}."
        ) from error
    for key in keys:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"The file {str(file)!r} holds no state dictionary of tensors{without}.")
    return [(str(name), value) for name, value in state.items()]
