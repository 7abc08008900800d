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
from prunecert.bench.leaderboard import commands
from prunecert.bench.leaderboard.runs import LargerRun
from prunecert.bench.machine import quote
from prunecert.bench.report import impact_tables
from prunecert.bench.report.table import seconds
from prunecert.bench.results.impact.potential import ALLOWANCE
from prunecert.bench.site import figures, impact, methods, papers
from prunecert.bench.site.matrix import matrix
from prunecert.bench.site.ranking import Rank
from prunecert.bench.site.svg import number
from prunecert.bench.site.view import SEED_PAPER, KeptShare, Row, classes, families
from prunecert.models import DENSE
from prunecert.models.pruners.taxonomy import FACETS, marked

if TYPE_CHECKING:
    import jinja2

#: Key, heading, whether it holds numbers, and what it says in words.
COLUMNS = (
    ("rank", "rank", True, "by verified accuracy at this radius; in brackets the places that the intervals allow"),
    ("entry", "entry", False, "opens the entry's page"),
    ("network", "network", False, "architecture"),
    ("objective", "objective", False, "training objective"),
    ("eps", "ε", True, "radius in the sup norm, pixels in [0, 1]"),
    ("pruner", "pruner", False, "pruning method"),
    ("seed", "seed", True, "seed of training and pruning"),
    ("compression", "compr.", True, "all prunable weights over the non-zero ones"),
    ("images", "n", True, "images"),
    ("clean", "clean %", True, "correctly classified"),
    ("verified", "verified %", True, "correctly classified and proved to stay so"),
    (
        "attacked",
        "under attack %",
        True,
        "robust accuracy under attack: correct, not broken; upper bound of verified",
    ),
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
    templates.filters.update(capitalize_first=_capitalized, marked=marked)
    templates.globals.update(version=prunecert.__version__, seed=SEED_PAPER)
    return templates


def _percent(share: Mapping[str, Any]) -> str:
    return f"{100 * share['value']:.1f}"


def _interval(share: Mapping[str, Any]) -> str:
    return f"({100 * share['low']:.1f}–{100 * share['high']:.1f})"


def _kept(kept: KeptShare) -> Markup:
    text = f"{100 * kept.value:.1f} <small>({100 * kept.low:.1f}–{100 * kept.high:.1f})</small>"
    return Markup(text)  # noqa: S704  # numbers alone


def _capitalized(text: str) -> str:
    """Returns a sentence that begins with a capital, and is as it is otherwise."""
    return text[:1].upper() + text[1:]


def _pretty(data: Any) -> str:
    return json.dumps(data, indent=1)


def index(
    env: jinja2.Environment, rows: Sequence[Row], places: Mapping[str, Rank], parquet: bool, *, left_out: int = 0
) -> str:
    """Returns the board.

    Args:
        env: The templates.
        rows: All rows, in the order of the board.
        places: Ranks by the entry's name.
        parquet: Whether there is a Parquet download.
        left_out: How many entries are not among the rows, since another stands for their network.
    """
    main, smaller = classes(rows)

    def values(key: str) -> list[str]:
        return sorted({str(row.cell[key]) for row in main})

    radii = sorted({(row.eps, row.cell["eps"]) for row in main})
    choices = [
        ("network", "Network", values("network")),
        ("objective", "Objective", values("objective")),
        ("eps", "Radius ε", [text for _, text in radii]),
        ("pruner", "Pruner", values("pruner")),
        ("seed", "Seed", sorted(values("seed"), key=int)),
        ("verifier", "Verifier", sorted({name for row in main for name in row.verifiers})),
    ]
    tenfold = [row for row in main if row.kept and _TENFOLD[0] <= row.compression <= _TENFOLD[1]]
    by_family = families(main)
    return env.get_template("index.html.j2").render(
        up="",
        rows=main,
        smaller=smaller,
        places=places,
        choices=choices,
        facets=methods.choices(main),
        facet_names=FACETS,
        facets_of={pruner: methods.facets_of(pruner) for pruner in values("pruner")},
        kinds=methods.kinds(main),
        grids=methods.grids(by_family),
        matrix=matrix(by_family),
        families=by_family,
        columns=COLUMNS,
        parquet=parquet,
        left_out=left_out,
        tenfold=tenfold[:_MOST_TENFOLD],
        more_tenfold=max(0, len(tenfold) - _MOST_TENFOLD),
        unpaired=any(not kept.paired for row in main if row.kept for kept in row.kept.values()),
        impacts=impact.impacts(main),
        method_note=impact_tables.METHOD_NOTE,
        exemplar_note=impact_tables.EXEMPLAR_NOTE,
        cost_note=impact_tables.COST_NOTE,
        allowance=f"{100 * ALLOWANCE:g}",
        reconstructions=impact_tables.reconstruction_note(values("pruner")),
        panels=[(family, figures.accuracy(members)) for family, members in by_family.items()],
    )


def entry(
    env: jinja2.Environment,
    row: Row,
    family: Sequence[Row],
    rank: Rank | None = None,
    onnx: str | None = None,
    *,
    also: Sequence[str] = (),
) -> str:
    """Returns the page of an entry.

    Args:
        env: The templates.
        row: The entry.
        family: All entries of its network, objective and radius, itself among them.
        rank: Its rank, if it has one.
        onnx: Address of its ONNX file on the site, if it is there.
        also: Names of other entries of the same network.
    """
    family = [other for other in family if (other.images, other.data_fingerprint) == (row.images, row.data_fingerprint)]
    nearest = sorted(family, key=lambda other: (other is not row, abs(other.sparsity - row.sparsity), other.name))
    shown = sorted(nearest[:_MOST_OTHERS], key=lambda other: (other.compression, other.cell["pruner"], other.name))
    return env.get_template("entry.html.j2").render(
        up="../",
        r=row,
        rank=rank,
        onnx=onnx,
        also=also,
        bracket=bracket(row),
        figures=figures.of_entry(row, family),
        family=shown,
        family_more=max(0, len(family) - _MOST_OTHERS),
        counts={stage["verifier"]: _counts(row, stage["verifier"]) for stage in row.entry["protocol"]["stages"]},
        facets=[] if row.cell["pruner"] == DENSE else _facets(row.cell["pruner"]),
        papers=papers.papers(row),
        citation=papers.citation(row.entry, row.full_title),
        card=commands.card_text(row.entry),
        export=commands.export_again(row.entry),
        commands=_commands(row),
        classes_table=impact.by_class(row),
        class_note=impact_tables.CLASS_NOTE,
        outcomes=row.outcomes if row.own_images <= _MOST_OUTCOMES else (),
        class_name=lambda label: impact_tables.class_name(label, row.class_names),
        words=_WORDS,
    )


def _facets(pruner: str) -> list[tuple[str, str]]:
    """Returns a method's facets, where they are stated, as pairs (name, words)."""
    return [(FACETS[field], words) for field, words in methods.facets_of(pruner).items() if words != methods.UNSTATED]


def _commands(row: Row) -> list[tuple[str, str]]:
    """Returns pairs (what it does, command) that make the entry's numbers again."""
    again = [("Measured again by", commands.measure_again(row.entry))]
    training = row.entry["training"]
    if training and training["command"]:
        again.append(("Trained again by", quote(shlex.split(training["command"]))))
    if row.larger is not None:
        again.append((f"The run over {row.images:,} images, for this network, by", _larger_command(row.larger)))
    return again


def _larger_command(larger: LargerRun) -> str:
    run = larger.run
    profile = [] if run.profile == "default" else ["--profile", run.profile]
    chosen = ["--cells", larger.cell.name, "--images", str(larger.images)]
    return shlex.join(["prunecert", "run", "--suite", run.suite, *profile, *chosen])


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
        f'<svg class="bracket" viewBox="0 0 575 56" role="img" aria-label="{words}under attack {attacked:.1f} %, with '
        'intervals, on a scale from 0 to 100 per cent">' + "".join(parts) + "</svg>"
    )
