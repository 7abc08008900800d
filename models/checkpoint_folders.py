"""Where checkpoints are looked for and where new ones go.

A checkout has one folder, the zoo. An installed package keeps its zoo as it is: what its user trains goes into a folder
of the user's, and what is looked for by name is looked for there first.

    in a checkout        CHECKPOINTS = ZOO
    from a wheel         CHECKPOINTS = ./checkpoints ── not there ──> ZOO, which ships
    any other folder     that one alone
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

#: The checkpoints that ship with the package.
ZOO = Path(__file__).parent / "checkpoints"


def default_folder(package: Path) -> Path:
    """Returns where checkpoints go that nobody has said a folder for.

    Args:
        package: The folder of `prunecert.models`.
    """
    # In a checkout it is a link to a folder beside the project's file.
    checkout = (package.resolve().parent / "pyproject.toml").is_file()
    return package / "checkpoints" if checkout else Path("checkpoints")


#: Where new ones go, and where they are looked for first.
CHECKPOINTS = default_folder(Path(__file__).parent)


def places(folder: Path) -> tuple[Path, ...]:
    """Returns the folders in which the checkpoints of `folder` are looked for, the first first."""
    return (folder, ZOO) if folder == CHECKPOINTS and folder != ZOO else (folder,)


def describe_places(folder: Path) -> str:
    """Returns where that is, for people."""
    return str(folder) if len(places(folder)) == 1 else f"{folder} or among the shipped ones"


def locate(folder: Path, name: str) -> Path:
    """Returns the ``.safetensors`` file of a checkpoint: where it is, or where it would be in `folder`.

    Args:
        folder: Where to look.
        name: The checkpoint's name.
    """
    files = [place / f"{name}.safetensors" for place in places(folder)]
    return next((file for file in files if _is_there(file)), files[0])


def checkpoint_files(folder: Path) -> list[Path]:
    """Returns the ``.safetensors`` files that are looked for in `folder`, by name; of two of one name, the first.

    Args:
        folder: Where to look; it need not exist.
    """
    files: dict[str, Path] = {}
    for place in places(folder):
        for file in place.glob("*.safetensors"):
            files.setdefault(file.stem, file)
    return [files[name] for name in sorted(files)]


def hidden(folder: Path, names: Iterable[str]) -> list[str]:
    """Returns one line if own checkpoints stand before shipped ones of the same name; nothing else.

    Args:
        folder: Where was looked.
        names: The checkpoints that were looked for.
    """
    both = [
        name
        for name in dict.fromkeys(names)
        if len(places(folder)) > 1 and all(_is_there(place / f"{name}.safetensors") for place in places(folder))
    ]
    if not both:
        return []
    rest = f" and {len(both) - 1} more" if len(both) > 1 else ""
    return [f"{both[0]}{rest}: taken from {folder}; the package ships checkpoints of the same name."]


def _is_there(file: Path) -> bool:
    """Whether there is a checkpoint, or a part of one: half of an own one must not turn into a shipped one."""
    return file.is_file() or file.with_suffix(".json").is_file()
