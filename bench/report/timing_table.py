"""The tables of a timing run, as rows of text, as Markdown and as an HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunecert.bench.machine import quote
from prunecert.bench.report.medium import Table, templates
from prunecert.bench.report.table import seconds
from prunecert.bench.report.timing_figures import FIGURES, inline_svg

Group = Mapping[str, Any]
#: Heading, and whether the column holds numbers.
COLUMNS = (
    ("verifier", False),
    ("pruner", False),
    ("×", True),
    ("images", True),
    ("decided", True),
    ("median s", True),
    ("mean s", True),
    ("compact: median s", True),
    ("mean s", True),
    ("unstable", True),
    ("domains", True),
    ("faster, median", True),
    ("search", True),
    ("arithmetic", True),
    ("shapes", True),
    ("faster, mean", True),
)
SHAPE_COLUMNS = (
    ("pruner", False),
    ("×", True),
    ("network", False),
    ("neurons", True),
    ("weights", True),
    ("non-zero", True),
    ("MACs", True),
    ("MACs without zeros", True),
)


def faster(factor: Mapping[str, Any] | None, interval: bool = True) -> str:
    """Returns a ratio of times as a speed-up with its interval: ``2.10 (1.95–2.30)``; a dash where there is none."""
    if factor is None:
        return "–"
    text = f"{1 / factor['ratio']:.2f}"
    if not interval or factor["low"] is None:
        return text
    return f"{text} ({1 / factor['high']:.2f}–{1 / factor['low']:.2f})"


def rows(group: Group) -> list[list[str]]:
    """Returns a group's table, one line for each verifier and ratio, in the order of `COLUMNS`."""
    networks = {network["name"]: network for network in group["networks"]}
    lines = []
    for verifier in group["verifiers"]:
        mark = "*" if verifier["mean_is"] == "par2" else ""
        factors = {(row["pruner"], row["compression"]): row for row in verifier["factors"]}
        written: dict[tuple[str, float], dict[str, Mapping[str, Any]]] = {}
        for row in verifier["networks"]:
            network = networks[row["network"]]
            written.setdefault((network["pruner"], network["compression"]), {})[network["variant"]] = row
        for (pruner, compression), variants in written.items():
            masked, compact = variants.get("masked"), variants.get("compact")
            if masked is None:
                continue
            factor = factors.get((pruner, compression), {})
            median, mean = factor.get("median", {}), factor.get("mean", {})
            lines.append(
                [
                    verifier["verifier"],
                    pruner,
                    f"{compression:g}",
                    str(masked["images"]),
                    str(masked["decided"]),
                    seconds(masked["median_s"]),
                    seconds(masked["mean_s"]) + mark,
                    seconds(compact["median_s"]) if compact else "–",
                    seconds(compact["mean_s"]) + mark if compact else "–",
                    "–" if masked["unstable"] is None else f"{masked['unstable']:g}",
                    "–" if masked["domains"] is None else f"{masked['domains']:.1f}",
                    faster(median.get("whole")),
                    *(faster(median.get(name), interval=False) for name in ("search", "arithmetic", "shapes")),
                    faster(mean.get("whole")) + (mark if mean else ""),
                ]
            )
    return lines


TWIN_COLUMNS = (
    ("zeros skipped", False),
    ("dense arithmetic", False),
    ("pruner", False),
    ("×", True),
    ("network", False),
    ("images", True),
    ("faster, median", True),
    ("faster, mean", True),
)


def twin_rows(group: Group) -> list[list[str]]:
    """Returns the comparison of methods that skip zeros with the same on dense arithmetic, but for filled networks."""
    networks = {network["name"]: network for network in group["networks"]}
    return [
        [
            twin["verifier"],
            twin["over"],
            network["pruner"],
            f"{network['compression']:g}",
            network["variant"],
            str(twin["images"]),
            faster(twin["median"]),
            faster(twin["mean"]),
        ]
        for twin in group["twins"]
        if (network := networks[twin["network"]])["variant"] != "filled"
    ]


def shape_rows(group: Group) -> list[list[str]]:
    """Returns the sizes of a group's networks, in the order of `SHAPE_COLUMNS`; filled ones are as the masked."""
    keys = ("neurons", "weights", "nonzero", "macs", "sparse_macs")
    return [
        [
            network["pruner"],
            f"{network['compression']:g}",
            network["variant"],
            *(f"{network['shapes'][key]:,}" for key in keys),
        ]
        for network in group["networks"]
        if network["variant"] != "filled"
    ]


def notes(summary: Mapping[str, Any]) -> list[str]:
    """Returns what has to be said beneath the tables."""
    machine = summary["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; one verifier process at work at a "
        f"time, {summary['threads']} threads, not pinned; every verifier on every image, networks taking turns.",
        "Seconds an image, without starting processes and loading networks: medians over repeats, then over images. "
        "* PAR2: an undecided image counts twice the limit. In brackets 95 % bootstrap intervals, paired by image; "
        "none where fewer than five images, or questions asked in batches, stand behind a ratio.",
        "faster: against the dense network; search × arithmetic × shapes (fewer unstable ReLUs and domains; zeros "
        "skipped; smaller layers) multiply to it. Where arithmetic is a dash, it is within search.",
    ]
    for group in summary["groups"]:
        batches = {v["verifier"]: v["batch"] for v in group["verifiers"] if v["batch"] > 1}
        if batches:
            words = ", ".join(f"{name} {count}" for name, count in batches.items())
            lines.append(f"{group['name']}: images handed over together: {words}; all others one by one.")
    lines += [f"left out: {name} ({hint})" for name, hint in summary["skipped"].items()]
    load = summary["load_average"]
    if load["busy"]:
        lines.append(
            f"WARNING: the load average reached {load['most']:.1f} on {machine['cores']} cores, so something else ran "
            "beside it: take these times again on a quiet machine."
        )
    if not summary["finished"]:
        lines.append("WARNING: the run was stopped; run the same command again to go on.")
    return lines


def markdown(summary: Mapping[str, Any]) -> str:
    """Returns all tables and notes as Markdown."""
    lines = []
    for group in summary["groups"]:
        lines += [f"**{group['name']}**, {group['images']} of {group['common']} images that all get right", ""]
        lines += [*Table(COLUMNS, rows(group)).markdown(), ""]
        if group["twins"]:
            lines += [*Table(TWIN_COLUMNS, twin_rows(group)).markdown(), ""]
        lines += [*Table(SHAPE_COLUMNS, shape_rows(group)).markdown(), ""]
    return "\n".join([*lines, *notes(summary), ""])


def html(summary: Mapping[str, Any]) -> str:
    """Returns the page: one file, no outside requests, light and dark."""
    from markupsafe import Markup

    groups = [
        {
            "name": group["name"],
            "images": group["images"],
            "common": group["common"],
            "rows": rows(group),
            "shapes": shape_rows(group),
            "twins": twin_rows(group),
            # Our own drawing: matplotlib escapes the names that it writes as text.
            "figures": [
                {"caption": caption, "svg": Markup(inline_svg(group, name))}  # noqa: S704
                for name, (caption, *_) in FIGURES.items()
                if group["verifiers"]
            ],
        }
        for group in summary["groups"]
    ]
    return (
        templates("prunecert.bench.report")
        .get_template("timing.html.j2")
        .render(
            run=summary,
            groups=groups,
            columns=COLUMNS,
            shape_columns=SHAPE_COLUMNS,
            twin_columns=TWIN_COLUMNS,
            notes=notes(summary),
            command=quote(summary["command"]),
        )
    )
