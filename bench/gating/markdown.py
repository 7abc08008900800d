"""A gate's result as Markdown, for the summary of a CI step."""

from __future__ import annotations

from prunecert.bench.gating.result import CaseState, CellResult, GateResult, Metric, TimeRatio

SIGNS = {CaseState.PASS: "✅", CaseState.WARN: "⚠️", CaseState.SKIP: "⏭️", CaseState.ERROR: "💥", CaseState.FAIL: "❌"}
_SHOWN = 100


def escape(text: str) -> str:
    """Escapes what Markdown or HTML would take for its own, on one line."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|~":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def change(metric: Metric) -> str:
    """Returns a metric as ``40.0 → 38.0 % (-2.0 pp)``."""
    ours, theirs = 100 * metric.base / metric.n, 100 * metric.run / metric.n
    return f"{ours:.1f} → {theirs:.1f} % ({100 * float(metric.change):+.1f} pp)"


def render(result: GateResult) -> str:
    """Returns the document."""
    sign = {"passed": CaseState.PASS, "failed": CaseState.FAIL, "broken": CaseState.ERROR}[result.outcome]
    lines = [f"## {SIGNS[sign]} {escape(result.headline)}", ""]
    lines.append("| | cell | n | verified | under attack | clean | lost | gained | McNemar p | time |")
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    lines += [_row(cell) for cell in result.cells]
    lines.append("")
    lines += [f"- {escape(note)}" for note in result.notes]
    for title, states in (
        ("Failed", (CaseState.FAIL,)),
        ("Errors", (CaseState.ERROR,)),
        ("Warnings", (CaseState.WARN,)),
    ):
        cases = [case for case in result.all_cases if case.state in states]
        if cases:
            lines += ["", f"### {title}", ""]
        for case in cases:
            lines.append(f"- **{escape(case.cell or 'run')}**, {escape(case.name)}: {escape(case.message)}")
            lines += [f"  - {escape(line)}" for line in case.lines[:_SHOWN]]
            if len(case.lines) > _SHOWN:
                lines.append(f"  - … and {len(case.lines) - _SHOWN} more")
    history = result.head["baseline"]["history"]
    if history:
        lines += ["", f"Baseline of {escape(history[-1]['date'])}: {escape(history[-1]['reason'])}"]
    return "\n".join([*lines, ""])


def render_refusal(message: str) -> str:
    """Returns the document of a gate that compared nothing.

    Args:
        message: Why.
    """
    return f"## {SIGNS[CaseState.ERROR]} BROKEN: nothing was compared\n\n{escape(message)}\n"


def _row(cell: CellResult) -> str:
    time = f"×{cell.time.ratio:.2f}" if isinstance(cell.time, TimeRatio) else "–"
    verified = cell.metrics["verified"]
    words = [SIGNS[cell.state], escape(cell.name), str(verified.n)]
    words += [change(cell.metrics[name]) for name in ("verified", "attacked", "clean")]
    words += [str(len(cell.lost)), str(len(cell.gained)), f"{verified.p:.2g}", time]
    return "| " + " | ".join(words) + " |"
