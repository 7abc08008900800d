"""Where alpha-beta-CROWN is, in which version, and what it lacks; imports nothing of it.

It is a checkout named by `ABCROWN_HOME`, or the installed package `abcrown`. Both hold a folder with `api.py`
whose modules import each other as top-level ones.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from prunecert.printable import shortened

REPOSITORY = "https://github.com/Verified-Intelligence/alpha-beta-CROWN"
CONVERTER = "https://github.com/KaidiXu/onnx2pytorch"
#: What its modules import on start, by the name to import and the name to install.
MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxoptimizer": "onnxoptimizer",
    "skl2onnx": "skl2onnx",
    "gurobipy": "gurobipy",
    "sortedcontainers": "sortedcontainers",
    "graphviz": "graphviz",
    "appdirs": "appdirs",
    "pandas": "pandas",
    "sympy": "sympy",
    "tqdm": "tqdm",
    "psutil": "psutil",
    "yaml": "pyyaml",
}


@dataclass(frozen=True)
class Install:
    """A copy of alpha-beta-CROWN.

    Args:
        folder: Holds `api.py`.
        paths: What to put in front of `sys.path`, in this order.
        version: E.g. ``"0.7.0 (8250d5fbd530), auto_LiRPA 0.7.1"``.
    """

    folder: Path
    paths: tuple[str, ...]
    version: str


def find() -> Install | str:
    """Returns the copy that is to be used, or one sentence on what is missing and how to get it."""
    home = os.environ.get("ABCROWN_HOME", "")
    try:
        return _find(home)
    except (OSError, RuntimeError, ValueError) as error:
        # A folder that may not be read, a name that is too long or of nobody's home, a module without a specification.
        where = f"ABCROWN_HOME is {shortened(home)!r}, which" if home else "The installed alpha-beta-CROWN"
        return f"{where} can't be looked at ({shortened(error)}); it must be a checkout of {REPOSITORY}"


def _find(home: str) -> Install | str:
    if home:
        folder = Path(home).expanduser() / "complete_verifier"
        if not (folder / "api.py").is_file():
            return (
                f"ABCROWN_HOME is {shortened(home)!r}, where complete_verifier/api.py is missing; it must be a "
                f"checkout of {REPOSITORY} of December 2025 or later: git clone --recursive {REPOSITORY}"
            )
    else:
        package = importlib.util.find_spec("abcrown")
        if package is None or package.origin is None or not (Path(package.origin).parent / "api.py").is_file():
            return (
                f"alpha-beta-CROWN is not here: git clone --recursive {REPOSITORY} and name the folder by "
                "ABCROWN_HOME or --abcrown, or install it as the package `abcrown`"
            )
        folder = Path(package.origin).parent
    paths, lirpa = [str(folder)], folder / "auto_LiRPA"
    if not (lirpa / "__init__.py").is_file():
        # Where the checkout could not make upstream's symbolic link.
        submodule = folder.parent / "auto_LiRPA"
        lirpa = submodule / "auto_LiRPA"
        paths.append(str(submodule))
    if not (lirpa / "__init__.py").is_file():
        installed = _origin("auto_LiRPA")
        if installed is None:
            return (
                f"alpha-beta-CROWN in {folder.parent} lacks its submodule auto_LiRPA: "
                f"git -C {folder.parent} submodule update --init"
            )
        lirpa = installed
        paths.pop()
    lirpa_version = _version(lirpa)
    if (_numbers(lirpa_version) or (99,)) < (0, 6):
        return (
            f"auto_LiRPA {lirpa_version} in {lirpa} is too old for alpha-beta-CROWN (the one on PyPI is of 2022): "
            f"git -C {folder.parent} submodule update --init"
        )
    lacking = [name for module, name in MODULES.items() if importlib.util.find_spec(module) is None]
    if lacking:
        return f"alpha-beta-CROWN needs more Python packages: python -m pip install {' '.join(lacking)}"
    converter = _origin("onnx2pytorch")
    if converter is None or not _takes_quirks(converter):
        flaw = "is not installed" if converter is None else "is not the fork that it needs (the one on PyPI is not)"
        return f"alpha-beta-CROWN's onnx2pytorch {flaw}: python -m pip install git+{CONVERTER}"
    commit = git_commit(folder.parent)
    version = _version(folder) + (f" ({commit[:12]})" if commit else "")
    return Install(folder, tuple(paths), f"{version}, auto_LiRPA {lirpa_version}")


def _origin(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _version(package: Path) -> str:
    """Reads `__version__` from a package's text."""
    file = package / "__init__.py"
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return match.group(1) if match else "of unknown version"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _takes_quirks(package: Path) -> bool:
    model = package / "convert" / "model.py"
    return model.is_file() and "quirks" in model.read_text(encoding="utf-8", errors="replace")


def git_commit(folder: Path) -> str:
    """Returns the commit that is checked out in `folder`, read from its .git, or an empty string."""
    git = folder / ".git"
    try:
        if git.is_file():
            git = folder / git.read_text().strip().removeprefix("gitdir: ")
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        common = git / "commondir"
        stores = [git, git / common.read_text().strip()] if common.is_file() else [git]
        for store in stores:
            if (store / name).is_file():
                return (store / name).read_text().strip()
            if (store / "packed-refs").is_file():
                for line in (store / "packed-refs").read_text().splitlines():
                    if line.endswith(f" {name}"):
                        return line.split()[0]
    except (OSError, ValueError):
        pass
    return ""
