"""What is said of a run's certificates beneath its table: how many answers have one, and which have none, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Summary = Mapping[str, Any]
#: Images without a certificate that are named.
_SHOWN = 20


def notes(summary: Summary) -> list[str]:
    """Returns a line a cell, and one for each image that was decided and has no certificate."""
    cells = summary.get("proofs", ())
    lines = [
        f"certificates of {cell['name']}: {_counts(cell, 'unsat')} unsat, {_counts(cell, 'sat')} sat (of them "
        f"{_counts(cell, 'sparse')} by sparse verifiers); {cell['size']:,} bytes, {cell['seconds']:.3g} s to find "
        f"beyond the answers' own, {cell['check_s']:.3g} s to check."
        for cell in cells
    ]
    missing = [
        f"NO CERTIFICATE: {cell['name']} image {item['image']}, {item['status']} by {item['verifier']}: "
        f"{item['detail'] or 'none was asked for yet'}."
        for cell in cells
        for item in cell["uncertified"]
    ]
    more = [f"NO CERTIFICATE: and {len(missing) - _SHOWN} more; see summary.json."] if len(missing) > _SHOWN else []
    return [*lines, *missing[:_SHOWN], *more]


def _counts(cell: Mapping[str, Any], kind: str) -> str:
    counts = cell[kind]
    return f"{counts['certified']} of {counts['decided']}"
