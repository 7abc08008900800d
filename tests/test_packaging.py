"""How it is installed: constraints, the image, and what the package says of itself."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.house import ROOT, constraints

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSIONS = constraints.read((ROOT / "constraints.txt").read_text())


def test_constraints_name_a_fitting_version_of_all_that_is_asked_for() -> None:
    for requirement in constraints.asked(*constraints.EXTRAS):
        name = canonicalize_name(requirement.name)
        assert name in VERSIONS, f"{name}: {constraints.HEADER}"
        assert Version(VERSIONS[name]) in requirement.specifier, requirement


def test_constraints_say_how_they_were_written_and_name_no_server() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert text.startswith(constraints.HEADER)
    assert "://" not in text
    assert list(VERSIONS) == sorted(VERSIONS)


def test_constraints_are_the_closure_of_what_is_installed() -> None:
    versions = constraints.needed(constraints.asked("all"))
    assert {"torch", "onnx", "llvmlite", "jinja2"} <= set(versions), "numba needs llvmlite, by way of which it comes"
    assert "prunecert" not in versions
    assert all("+" not in version for version in versions.values())
    assert constraints.needed([Requirement("no-such-package>=1")]) == {}


@pytest.mark.parametrize("line", ["torch>=2", "torch==2 --hash=x", "-r other.txt", "https://x/y.whl", "torch"])
def test_a_line_that_is_no_constraint_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is no name==version"):
        constraints.read(f"# x\n\n{line}\n")


def test_the_package_says_what_it_is() -> None:
    classifiers = set(PROJECT["classifiers"])
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
        assert Version(version) in SpecifierSet(PROJECT["requires-python"])
    assert any(classifier.startswith("Operating System :: POSIX") for classifier in classifiers)
    assert PROJECT["authors"]
    assert "log" in PROJECT["optional-dependencies"]


def test_the_site_is_built_with_what_the_extra_docs_names() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert "docs" in re.split(r"[,\s]+", tox["tox"]["env_list"]), "continuous integration runs them all"
    assert tox["testenv:docs"]["deps"].split() == PROJECT["optional-dependencies"]["docs"]
    assert "--strict" in tox["testenv:docs"]["commands"]


# The image. Docker isn't everywhere, so its recipe is held to the rules of hadolint that concern it.


def instructions(text: str) -> list[tuple[str, str]]:
    """Returns the instructions of a Dockerfile with their arguments, continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    return [
        (word.upper(), " ".join(rest.split()))
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def lint(text: str) -> list[str]:
    """Returns which rules a Dockerfile breaks, by hadolint's names."""
    lines = instructions(text)
    broken: list[str] = []
    stages: set[str] = set()
    user = "root"
    last_stage: list[tuple[str, str]] = []
    for word, rest in lines:
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            if not re.fullmatch(r"[\w./-]+:[\w.-]+", image) or image.endswith(":latest"):
                broken.append("DL3006/DL3007: an image without its version")
            if name:
                stages.add(name)
            user, last_stage = "root", []
        last_stage.append((word, rest))
        if word == "ADD":
            broken.append("DL3020: COPY, not ADD")
        if word == "MAINTAINER":
            broken.append("DL4000: MAINTAINER")
        if word == "WORKDIR" and not rest.startswith("/"):
            broken.append("DL3000: WORKDIR not absolute")
        if word in ("CMD", "ENTRYPOINT"):
            try:
                json.loads(rest)
            except ValueError:
                broken.append("DL3025: not in JSON form")
        if word == "COPY" and (source := re.match(r"--from=(\S+)", rest)) and source[1] not in stages:
            broken.append("DL3022: COPY from no stage")
        if word == "RUN":
            for pip in re.findall(r"pip install[^&|;]*", rest):
                if "--no-cache-dir" not in pip:
                    broken.append("DL3042: pip keeps its cache")
                if "-c " not in pip and "==" not in pip:
                    broken.append("DL3013: pip without versions")
            if "apt-get install" in rest and not ("--no-install-recommends" in rest and "rm -rf /var/lib/apt" in rest):
                broken.append("DL3009/DL3015: apt-get leaves too much")
            if re.search(r"\bsudo\b|\bcd /|curl|wget", rest):
                broken.append("DL3004/DL3003/DL4001")
        if word == "USER":
            user = rest
    if user.split(":")[0] in ("root", "0"):
        broken.append("DL3002: the last user is root")
    if [word for word, _ in last_stage].count("ENTRYPOINT") != 1:
        broken.append("DL4004: one ENTRYPOINT")
    return broken


GOOD = 'FROM a:1 AS b\nFROM a:1\nCOPY --from=b /x /x\nUSER me\nENTRYPOINT ["x"]\n'


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("FROM a:1\n", "FROM a\n", "DL3006"),
        ("FROM a:1\n", "FROM a:latest\n", "DL3006/DL3007"),
        ("USER me\n", "", "DL3002"),
        ("USER me\n", "USER me\nUSER root\n", "DL3002"),
        ("COPY --from=b", "COPY --from=c", "DL3022"),
        ("COPY --from=b", "ADD", "DL3020"),
        ('["x"]', "x", "DL3025"),
        ("USER me\n", "RUN pip install x==1\nUSER me\n", "DL3042"),
        ("USER me\n", "RUN pip install \\\n  --no-cache-dir x\nUSER me\n", "DL3013"),
        ("USER me\n", "RUN apt-get update && apt-get install -y x\nUSER me\n", "DL3009"),
        ("USER me\n", "WORKDIR work\nUSER me\n", "DL3000"),
    ],
)
def test_the_rules_bite(old: str, new: str, rule: str) -> None:
    assert lint(GOOD) == []
    (broken,) = lint(GOOD.replace(old, new, 1))
    assert broken.startswith(rule)


def test_the_image_holds_to_the_rules() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert lint(text) == []
    froms = [rest for word, rest in instructions(text) if word == "FROM"]
    assert len(froms) == 2, "what builds it is not in it"
    assert froms[0].removesuffix(" AS build") == froms[1]
    entry = [json.loads(rest) for word, rest in instructions(text) if word == "ENTRYPOINT"]
    assert entry == [[next(iter(PROJECT["scripts"]))]]


def test_what_the_image_copies_is_there_and_reaches_the_builder() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#"]
    assert ignored[0] == "*"
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied: set[str] = set()
    for word, rest in instructions((ROOT / "Dockerfile").read_text()):
        if word == "COPY" and not rest.startswith("--from"):
            copied.update(rest.split()[:-1])
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    links = {path.name for path in (ROOT / "prunecert").iterdir() if path.is_symlink()}
    assert links <= copied, "the package's folders are links to these"
    installed = [Path(name) for name in ("LICENSE", "README.md")]
    assert all(str(path) in copied for path in installed), "the package's metadata name them"
