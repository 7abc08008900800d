"""The board by pruning method: each with its place in the taxonomy, and what it keeps at each compression."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunecert.bench.site.view import KeptShare, Row
from prunecert.models import DENSE
from prunecert.models.pruners.taxonomy import FACETS, VARIANTS, Taxonomy, taxonomy_of

Family = tuple[str, str, str]
#: Shown where nobody has said it.
UNSTATED = "not stated"
#: Lower ends of the shades of what is kept, in shares; the last shade is for all below.
SHADES = (1.0, 0.97, 0.9, 0.8, 0.6)

#: How far a counted compression may be from the one asked for, to stand in its column.
_NEAR = 1.1


@dataclass(frozen=True)
class MethodKind:
    """A pruning method.

    Args:
        name: Its name.
        facets: Its place in words, by the taxonomy's fields; all `UNSTATED` where nobody has said it.
        entries: How many entries it has.
        variant: Of which method it is a variant, and how, or nothing.
    """

    name: str
    facets: Mapping[str, str]
    entries: int
    variant: str = ""


@dataclass(frozen=True)
class Shade:
    """What a method keeps of the dense network's verified accuracy at a compression.

    Args:
        kept: Mean share over seeds and submitters.
        low: Lower end: of the interval where there is one network, of all shares where there are several.
        high: Upper end.
        networks: How many networks.
        name: The entry's name, where there is one network.
    """

    kept: float
    low: float
    high: float
    networks: int
    name: str = ""

    @property
    def level(self) -> int:
        """Number of the shade: 0 keeps all, 5 least."""
        return next((place for place, least in enumerate(SHADES) if self.kept >= least), len(SHADES))


@dataclass(frozen=True)
class Grid:
    """Methods by compression, for one network, objective and radius.

    Args:
        family: Network, objective, radius.
        ratios: Columns: compressions, rising.
        rows: By method, in the order of what they keep at the highest ratio that they have; its shades by ratio.
        images: How many images, least first.
    """

    family: Family
    ratios: tuple[float, ...]
    rows: Mapping[str, Mapping[float, Shade]]
    images: tuple[int, ...]


def facets_of(pruner: str) -> dict[str, str]:
    """Returns a method's place in words, by field."""
    taxonomy: Taxonomy | None = taxonomy_of(pruner)
    return dict.fromkeys(FACETS, UNSTATED) if taxonomy is None else taxonomy.words()


def kinds(rows: Sequence[Row]) -> list[MethodKind]:
    """Returns the methods of all rows but the dense controls, by name."""
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        if row.cell["pruner"] != DENSE:
            counts[row.cell["pruner"]] += 1
    return [MethodKind(name, facets_of(name), counts[name], _variant(name)) for name in sorted(counts)]


def _variant(name: str) -> str:
    origin, how = VARIANTS.get(name, ("", ""))
    return f"{origin}, {how}" if origin else ""


def choices(rows: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """Returns the filters that tell methods apart: triples (field, label, values), those with one value left out."""
    methods = kinds(rows)
    values = {field: sorted({method.facets[field] for method in methods}) for field in FACETS}
    return [(field, FACETS[field].capitalize(), values[field]) for field in FACETS if len(values[field]) > 1]


def grids(families: Mapping[Family, Sequence[Row]]) -> list[Grid]:
    """Returns a grid for each family that has a pruned network with a dense control."""
    shown = (_grid(family, rows) for family, rows in families.items())
    return [grid for grid in shown if grid.rows]


def _grid(family: Family, rows: Sequence[Row]) -> Grid:
    shares: dict[str, dict[float, list[tuple[KeptShare, Row]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.kept and "verified" in row.kept:
            shares[row.cell["pruner"]][_column(row)].append((row.kept["verified"], row))
    shades = {name: {ratio: _shade(of) for ratio, of in by.items()} for name, by in shares.items()}
    ratios = sorted({ratio for by in shades.values() for ratio in by})
    order = sorted(shades, key=lambda name: (-max(shades[name]), -shades[name][max(shades[name])].kept, name))
    images = sorted({row.images for by in shares.values() for of in by.values() for _, row in of})
    return Grid(family, tuple(ratios), {name: shades[name] for name in order}, tuple(images))


def _column(row: Row) -> float:
    """Returns the ratio that was asked for, or the counted one's two digits where the network isn't near it."""
    nominal = float(row.cell["compression"])
    near = max(nominal / row.compression, row.compression / nominal) <= _NEAR
    return float(f"{nominal:.3g}" if near else f"{row.compression:.2g}")


def _shade(shares: Sequence[tuple[KeptShare, Row]]) -> Shade:
    values = [kept.value for kept, _ in shares]
    if len(shares) == 1:
        kept, row = shares[0]
        return Shade(kept.value, kept.low, kept.high, 1, row.name)
    return Shade(sum(values) / len(values), min(values), max(values), len(values))
