"""The pages of the site, from rows to HTML; every name is escaped by the templates."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

import prunecert
from prunecert.bench.report.table import seconds
from prunecert.bench.site import figures
from prunecert.bench.site.svg import number
from prunecert.bench.site.view import SEED_PAPER, Kept, Row, families
from prunecert.models.data import CLASSES

if TYPE_CHECKING:
    import jinja2

#: Key, heading, whether it holds numbers, and what it says in words.
COLUMNS = (
    ("entry", "entry", False, "opens the entry's page"),
    ("network", "network", False, "architecture"),
    ("objective", "objective", False, "training objective"),
    ("eps", "ε", True, "radius in the sup norm, pixels in [0, 1]"),
    ("pruner", "pruner", False, "pruning method"),
    ("compression", "compr.", True, "all prunable weights over the non-zero ones"),
    ("sparsity", "sparsity", True, "zeros over all prunable weights"),
    ("images", "n", True, "images"),
    ("clean", "clean %", True, "correctly classified"),
    ("verified", "verified %", True, "correctly classified and proved to stay so"),
    ("attacked", "attacked %", True, "correctly classified and not broken; upper bound of verified"),
    ("undecided", "undec.", True, "images that nothing decided"),
    ("kept", "kept %", True, "verified accuracy over that of the dense control"),
    ("time", "median s", True, "seconds an image, all verifiers up to the deciding one; compare on one machine only"),
)
STATIC = ("style.css", "theme.js", "board.js", "entry.js")
_WORDS = {
    "misclassified": "misclassified",
    "unsat": "verified",
    "sat": "broken",
    "unknown": "undecided",
    "timeout": "undecided (time limit)",
    "memout": "undecided (memory)",
    "error": "undecided (failure)",
    "unsupported": "undecided (unsupported)",
}
_TENFOLD = (8.0, 12.5)
_MOST_TENFOLD = 30
_MOST_OTHERS = 25
_MOST_OUTCOMES = 200


def environment() -> jinja2.Environment:
    """Returns the templates, with escaping on and every missing variable an error."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("prunecert.bench.site", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters.update(percent=_percent, interval=_interval, kept=_kept, seconds=seconds, pretty=_pretty)
    templates.globals.update(version=prunecert.__version__, seed=SEED_PAPER)
    return templates


def _percent(share: Mapping[str, Any]) -> str:
    return f"{100 * share['value']:.1f}"


def _interval(share: Mapping[str, Any]) -> str:
    return f"({100 * share['low']:.1f}–{100 * share['high']:.1f})"


def _kept(kept: Kept) -> Markup:
    text = f"{100 * kept.value:.1f} <small>({100 * kept.low:.1f}–{100 * kept.high:.1f})</small>"
    return Markup(text)  # noqa: S704  # numbers alone


def _pretty(data: Any) -> str:
    return json.dumps(data, indent=1)


def index(env: jinja2.Environment, rows: Sequence[Row], parquet: bool) -> str:
    """Returns the board.

    Args:
        env: The templates.
        rows: All rows, in the order of the board.
        parquet: Whether there is a Parquet download.
    """

    def values(key: str) -> list[str]:
        return sorted({str(row.cell[key]) for row in rows})

    radii = sorted({(row.eps, row.cell["eps"]) for row in rows})
    choices = [
        ("network", "Network", values("network")),
        ("objective", "Objective", values("objective")),
        ("eps", "Radius ε", [text for _, text in radii]),
        ("pruner", "Pruner", values("pruner")),
        ("verifier", "Verifier", sorted({name for row in rows for name in row.verifiers})),
    ]
    tenfold = [row for row in rows if row.kept and _TENFOLD[0] <= row.compression <= _TENFOLD[1]]
    panels = [(family, figures.accuracy(members)) for family, members in families(rows).items()]
    return env.get_template("index.html.j2").render(
        up="",
        rows=rows,
        choices=choices,
        columns=COLUMNS,
        parquet=parquet,
        tenfold=tenfold[:_MOST_TENFOLD],
        more_tenfold=max(0, len(tenfold) - _MOST_TENFOLD),
        panels=panels,
    )


def entry(env: jinja2.Environment, row: Row, family: Sequence[Row]) -> str:
    """Returns the page of an entry.

    Args:
        env: The templates.
        row: The entry.
        family: All entries of its network, objective and radius, itself among them.
    """
    nearest = sorted(family, key=lambda other: (other is not row, abs(other.sparsity - row.sparsity), other.name))
    shown = sorted(nearest[:_MOST_OTHERS], key=lambda other: (other.compression, other.cell["pruner"], other.name))
    return env.get_template("entry.html.j2").render(
        up="../",
        r=row,
        bracket=bracket(row),
        figures=figures.of_entry(row, family),
        family=shown,
        family_more=max(0, len(family) - _MOST_OTHERS),
        counts={stage["verifier"]: _counts(row, stage["verifier"]) for stage in row.entry["protocol"]["stages"]},
        command=shlex.join(row.entry["protocol"]["command"]),
        outcomes=row.outcomes if row.images <= _MOST_OUTCOMES else (),
        classes=CLASSES,
        words=_WORDS,
    )


def _counts(row: Row, verifier: str) -> dict[str, Any]:
    columns = row.entry["verdicts"][verifier]
    counts = Counter(columns["status"])
    return {
        "asked": len(columns["image"]),
        "unsat": counts["unsat"],
        "sat": counts["sat"],
        "undecided": counts["unknown"] + counts["timeout"],
        "failed": counts["memout"] + counts["error"] + counts["unsupported"],
        "median": float(np.median(columns["seconds"])) if columns["seconds"] else None,
    }


def bracket(row: Row) -> Markup:
    """Returns the bar from verified to attacked accuracy, on a scale from 0 to 100 %, with both intervals."""
    result, left, scale = row.result, 10.0, 5.4
    verified = 100 * result["verified"]["value"] if row.can_verify else 0.0
    attacked = 100 * result["attacked"]["value"]

    def at(value: float) -> str:
        return number(left + scale * value)

    parts = [
        f'<path class="axis" d="M{at(t)} 34v5"/><text x="{at(t)}" y="51">{t}{" %" if t == 100 else ""}</text>'
        for t in range(0, 101, 20)
    ]
    parts.append(f'<path class="axis" d="M{at(0)} 34H{at(100)}"/>')
    parts.append(f'<rect class="v" x="{at(0)}" y="10" width="{number(scale * verified)}" height="18"/>')
    parts.append(
        f'<rect class="a" x="{at(verified)}" y="10" width="{number(scale * (attacked - verified))}" height="18"/>'
    )
    shares = [("ci2", result["attacked"], 22)] + ([("ci", result["verified"], 16)] if row.can_verify else [])
    for kind, share, y in shares:
        low, high = at(100 * share["low"]), at(100 * share["high"])
        parts.append(f'<path class="{kind}" d="M{low} {y}H{high}M{low} {y - 3}v6M{high} {y - 3}v6"/>')
    words = f"verified {verified:.1f} %, " if row.can_verify else ""
    # Numbers and our own markup alone.
    return Markup(  # noqa: S704
        f'<svg class="bracket" viewBox="0 0 575 56" role="img" aria-label="{words}attacked {attacked:.1f} %, with '
        'intervals, on a scale from 0 to 100 per cent">' + "".join(parts) + "</svg>"
    )
