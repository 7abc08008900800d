"""Versions that are known to go together: what is installed here of all that the package and its extras need.

    python -m tests.house.constraints > constraints.txt

writes the file that CI and the image install with (``pip install -c constraints.txt …``). What comes from another index
than the usual one keeps its version and loses its mark (``2.9.0+cpu`` becomes ``2.9.0``); what isn't named is left to
pip.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house import ROOT

#: What CI and the image install. The others (marabou, slurm, docs, exporters, …) are asked for by hand.
EXTRAS = ("all", "test", "lint")
HEADER = "# Versions that go together. Written by: python -m tests.house.constraints > constraints.txt"


def asked(*extras: str) -> list[Requirement]:
    """Returns what pyproject.toml asks for, by itself and for these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [Requirement(text) for text in project["dependencies"]]
    for extra in extras:
        for text in project["optional-dependencies"][extra]:
            requirement = Requirement(text)
            nested = requirement.name == project["name"]
            requirements += asked(*sorted(requirement.extras)) if nested else [requirement]
    return requirements


def needed(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Returns the version of every installed package that is required, directly or by way of others."""
    versions: dict[str, str] = {}
    waiting = [place for requirement in requirements for place in _places(requirement)]
    visited: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in visited:
            continue
        visited.add((name, extra))
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        versions[name] = distribution.version.partition("+")[0]
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += _places(requirement)
    return dict(sorted(versions.items()))


def _places(requirement: Requirement) -> list[tuple[str, str]]:
    return [(canonicalize_name(requirement.name), extra) for extra in ("", *sorted(requirement.extras))]


def read(text: str) -> dict[str, str]:
    """Returns the versions that a file of constraints names.

    Raises:
        ValueError: A line is neither a comment nor ``name==version``.
    """
    versions: dict[str, str] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            match = re.fullmatch(r"([a-z0-9][a-z0-9-]*)==([0-9][0-9a-z.!]*)", line)
            if match is None:
                raise ValueError(f"{line!r} is no name==version")
            versions[match[1]] = match[2]
    return versions


def main() -> None:
    """Prints the file."""
    print(HEADER)
    for name, version in needed(asked(*EXTRAS)).items():
        print(f"{name}=={version}")


if __name__ == "__main__":
    main()
