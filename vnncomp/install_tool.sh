#!/usr/bin/env bash
# VNN-COMP: installs the tool into .venv of the checkout. Usage: install_tool.sh VERSION. Python 3.11 or newer is needed.
set -euo pipefail
if [ "${1:-}" != "v1" ]; then
    echo "Expected first argument (version string) 'v1', got '${1:-}'" >&2
    exit 1
fi
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
"$python" -m venv "$checkout/.venv"
"$checkout/.venv/bin/python" -m pip install -e "$checkout[neuralsat,attacks]"
# The kernels of the sparse engine are compiled once, here, and not within an instance's limit.
"$checkout/.venv/bin/python" -c 'from prunecert.verifiers.sparse.warmup import warm_up; warm_up()'
"$checkout/.venv/bin/prunecert" --version
