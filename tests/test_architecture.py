"""docs/architecture.md names what there is."""

from __future__ import annotations

import re
import tomllib

from tests import house

PAGE = (house.ROOT / "docs" / "architecture.md").read_text()
CONTRACTS = {
    contract["containers"][0]: contract["layers"]
    for contract in tomllib.loads((house.ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if contract["type"] == "layers"
}


def test_the_floors_of_bench_and_verifiers_are_drawn_in_the_contracts_order() -> None:
    for package, heading in (("prunecert.bench", "## bench"), ("prunecert.verifiers", "## verifiers")):
        table = PAGE[PAGE.index(heading) :].split("\n\n")[1].splitlines()[2:]
        drawn = [set(re.findall(r"`(\w+)`", line.split("|")[1])) for line in table]
        order = [set(re.findall(r"\w+", layer)) for layer in CONTRACTS[package]]
        places = [
            next(i for i, layer in enumerate(order) if room in layer) for rooms in drawn for room in sorted(rooms)
        ]
        assert places == sorted(places)
        folders = {path.parent.name for path in (house.ROOT / package.split(".")[1]).glob("*/__init__.py")}
        assert folders <= set.union(*drawn)


def test_every_room_that_a_journey_passes_is_there() -> None:
    journeys = PAGE[PAGE.index("## Five journeys") : PAGE.index("## Where to add what")]
    modules = {name.removeprefix("prunecert.") for name in house.modules()}
    named = {name.replace("/", ".") for name in re.findall(r"`([a-z_]+(?:[./][a-z_]+)+)`", journeys)}
    assert named
    assert not {name for name in named if not any(f".{module}".endswith(f".{name}") for module in modules)}


def test_where_to_add_what_names_folders() -> None:
    rows = PAGE[PAGE.index("## Where to add what") :].split("\n\n")[1].splitlines()[2:]
    for place in re.findall(r"`((?:bench|models|verifiers|prunecert)/[a-z_/]*)`", "\n".join(rows)):
        assert (house.ROOT / place).is_dir()
