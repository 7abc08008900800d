"""The script that a pack is started with on the machine that it was brought to."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

#: Checksums of the pack's files, as sha256sum reads them.
SUMS = "SHA256SUMS"
#: What training imports, and what pip calls it.
NEEDS = {
    "torch": "torch",
    "numpy": "numpy",
    "msgspec": "msgspec",
    "yaml": "pyyaml",
    "safetensors": "safetensors",
    "matplotlib": "matplotlib",
    "PIL": "pillow",
    "psutil": "psutil",
}
_SCRIPT = r"""#!/usr/bin/env bash
# Trains the cells of pack.json, the most telling first, until the budget is spent. Called again it goes on where it
# stopped. Each finished cell is one file in $OUT as soon as it is finished, and so is what the budget has cut off:
# fetch them as they come, and take them back with: prunecert unpack --pack PACK FILES
#
#   OUT=results BUDGET=@BUDGET@ DEVICE=@DEVICE@ PYTHON=python3 bash run.sh [options of prunecert train]
set -euo pipefail
PYTHON="${PYTHON:-python3}"
mkdir -p "${OUT:=results}"
OUT="$(cd "$OUT" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")"

refuse() { echo "error: $1" >&2; exit 2; }

# What came in pieces is joined; nothing is used before all of it is there as it was packed.
# Of two that are started at once the second waits for the first.
if command -v flock > /dev/null; then exec 9> .lock; flock 9; fi
here=".checked-@CODE@-$(sha256sum SHA256SUMS | cut -c 1-12)"
if [ ! -e "$here" ]; then
  while IFS= read -r first; do
    whole="${first%.piece000}"
    cat "$whole".piece[0-9][0-9][0-9] > "$whole"
  done < <(find . -name '*.piece000')
  sha256sum --check --quiet SHA256SUMS ||
    refuse "a file of the pack is missing or was cut off on the way; bring it here again."
  find . -name '*.piece[0-9][0-9][0-9]' -delete
  rm -rf code && mkdir code && tar -xzf code.tar.gz -C code
  mkdir -p checkpoints
  if [ -d start ]; then (cd start && tar -cf - .) | tar -xf - -C checkpoints --skip-old-files; fi
  touch "$here"
fi
exec 9>&-

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  refuse "$PYTHON is older than 3.11; name a newer one: PYTHON=python3.12 bash run.sh"
export PYTHONPATH="$PWD/code:$PWD/lib${PYTHONPATH:+:$PYTHONPATH}"
lacking() {
  "$PYTHON" -c '
import importlib.util, sys
pairs = [pair.split("=") for pair in sys.argv[1:]]
print(*[name for name, module in pairs if importlib.util.find_spec(module) is None])
' @NEEDS@
}
if [ -n "$(lacking)" ] && [ -d wheels ]; then
  "$PYTHON" -m pip install --quiet --no-index --no-deps --target lib wheels/*.whl
fi
missing="$(lacking)"
[ -z "$missing" ] || refuse "$PYTHON lacks $missing; run: $PYTHON -m pip install $missing (or pack with --wheels)"

exec "$PYTHON" -m prunecert train --suite @SUITE@ --cells @CELLS@ \
  --out checkpoints --data-root data.packed --archives "$OUT" \
  --device "${DEVICE:-@DEVICE@}" --budget "${BUDGET:-@BUDGET@}"@SUBSET@ "$@"
"""


def script(*, suite: str, cells: Sequence[str], subset: int | None, budget: str, device: str, code: str) -> str:
    """Returns the text of run.sh.

    Args:
        suite: The suite's name, or its file in the pack.
        cells: Names of the cells.
        subset: So many images only; None: all.
        budget: When it stops, unless BUDGET says otherwise.
        device: Torch device, unless DEVICE says otherwise.
        code: What tells the code from another.
    """
    words = {
        "SUITE": shlex.quote(suite),
        "CELLS": shlex.quote(",".join(cells)),
        "SUBSET": "" if subset is None else f" --subset {subset}",
        "BUDGET": shlex.quote(budget),
        "DEVICE": shlex.quote(device),
        "NEEDS": " ".join(f"{package}={module}" for module, package in NEEDS.items()),
        "CODE": code,
    }
    text = _SCRIPT
    for word, value in words.items():
        text = text.replace(f"@{word}@", value)
    return text
