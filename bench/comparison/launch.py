"""Runs a verifier's own script as ``python SCRIPT ARGUMENTS`` does, where torchvision may not fit the installed torch.

A torchvision for CUDA beside a torch for the CPU fails on import (see `prunecert.vision`), and both verifiers import
it. Nothing else is done to them: the script's folder comes first on the path, and this project's is not on it.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Declares what torchvision lacks and becomes the script."""
    script = Path(sys.argv[1])
    # By the package's own path: in a checkout its folders are links to others.
    root = str(Path(__file__).absolute().parents[3])
    sys.path.append(root)
    from prunecert.vision import import_torchvision

    import_torchvision()
    sys.path.remove(root)
    sys.path[0] = str(script.parent.resolve())
    sys.argv = sys.argv[1:]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
