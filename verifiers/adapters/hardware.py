"""What a verifier can run on, how much of it is free, and what is installed; torch is imported for CUDA only."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import psutil

from prunecert.verifiers.base import Availability


def first_missing(*distributions: str) -> str | None:
    """Returns the first of the named distributions that is not installed, or None; nothing is imported."""
    for name in distributions:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return name
    return None


def packaged(
    distribution: str, *needed: str, cuda: bool = True, install: str = "", whose: str = "", registry: str = " (PyPI)"
) -> Availability:
    """Says whether a verifier that is a distribution from PyPI can run here.

    Args:
        distribution: The verifier.
        needed: Others that it needs.
        cuda: Whether it runs on CUDA.
        install: What to install where something is missing; empty: what is missing.
        whose: What a person calls the verifier; empty: the distribution.
        registry: How its source ends. Runs are compared by it, so it stays what the first recorded ones have.
    """
    missing = first_missing(distribution, *needed)
    if missing is not None:
        hint = f"{whose or distribution} needs {missing}: python -m pip install {install or missing}"
        return Availability(False, hint=hint)
    version = importlib.metadata.version(distribution)
    devices = visible_devices() if cuda else ("cpu",)
    return Availability(True, version, devices=devices, source=f"{distribution} {version}{registry}")


def visible_devices() -> tuple[str, ...]:
    """Returns ``("cpu",)``, or ``("cpu", "cuda")`` where torch is a CUDA build and the driver is loaded."""
    try:
        build = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ("cpu",)
    if build.endswith("+cpu") or not Path("/proc/driver/nvidia/version").exists():
        return ("cpu",)
    return ("cpu", "cuda")


def free_memory(device: str) -> int:
    """Returns the free bytes of a device: of the machine for ``"cpu"``, of the card for ``"cuda[:N]"``."""
    if not device.startswith("cuda"):
        return int(psutil.virtual_memory().available)
    import torch

    return int(torch.cuda.mem_get_info(torch.device(device))[0])


def domains_that_fit(relus: int, device: str, *, share: float = 0.25, most: int = 1000) -> int:
    """Returns how many branch-and-bound domains to bound together, between 4 and `most`.

    A domain keeps about 24 float32 numbers a ReLU while it is bounded (bounds, slopes, coefficients and their
    gradients, and the two halves of the split), and a split doubles it.

    Args:
        relus: ReLUs of the network.
        device: Where the bounds are computed.
        share: Part of the free memory to plan with.
        most: Upper limit.
    """
    per_domain = 2 * 24 * 4 * max(relus, 1)
    return int(max(4, min(most, share * free_memory(device) / per_domain)))


def use_device(device: str) -> str:
    """Makes ``"cuda:N"`` the current CUDA device.

    Returns:
        ``"cuda"`` or ``"cpu"``, the words of verifiers that know the current device only.
    """
    if not device.startswith("cuda"):
        return "cpu"
    import torch

    torch.cuda.set_device(torch.device(device).index or 0)
    return "cuda"


def describe(device: str) -> str:
    """Returns ``cpu``, or ``cuda:N (name)``.

    Raises:
        RuntimeError: A CUDA device is asked for and torch has none: nothing falls back to the CPU silently.
    """
    if not device.startswith("cuda"):
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError(f"device {device!r} is refused: torch {torch.__version__} finds no CUDA device here")
    index = torch.device(device).index or 0
    return f"cuda:{index} ({torch.cuda.get_device_name(index)})"
