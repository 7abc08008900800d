"""torchvision can be imported beside any torch build, once and again."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_import_in_a_fresh_process() -> None:
    code = (
        "from prunecert.vision import import_torchvision\n"
        "module = import_torchvision()\n"
        "from torchvision import datasets, transforms\n"
        "assert import_torchvision() is module\n"
        "print(datasets.CIFAR10.__name__, transforms.ToTensor.__name__)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert process.stdout.split() == ["CIFAR10", "ToTensor"]
