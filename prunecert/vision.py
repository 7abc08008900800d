"""Import torchvision even where its compiled operators don't match the installed torch."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

#: A `torch.library.Library` undoes its declarations when it is collected, so it is kept.
_declared: list[Any] = []


def import_torchvision() -> ModuleType:
    """Returns torchvision, declaring the operators whose absence makes its import fail.

    A torchvision built for CUDA beside a torch for the CPU (or the other way round) can't load its compiled
    operators and then fails on import, because it registers meta kernels for `nms`, which does not exist. Data
    sets, transforms and plain modules need no such operator. The schema of `nms` is enough for them.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _declared:
            raise
    import torch

    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    return importlib.import_module("torchvision")
