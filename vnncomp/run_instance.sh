#!/usr/bin/env bash
# VNN-COMP: one instance. Usage: run_instance.sh VERSION CATEGORY ONNX VNNLIB RESULTS TIMEOUT.
# The first line of RESULTS is sat, unsat, timeout, unknown or error; behind sat the counterexample follows.
set -euo pipefail
if [ "${1:-}" != "v1" ]; then
    echo "Expected first argument (version string) 'v1', got '${1:-}'" >&2
    exit 1
fi
category=${2:?category} onnx=${3:?ONNX file} vnnlib=${4:?VNN-LIB file} results=${5:?results file} timeout=${6:?timeout}
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PRUNECERT_PYTHON:-$checkout/.venv/bin/python}
echo "Running prunecert on benchmark instance in category '$category' with onnx file '$onnx', vnnlib file '$vnnlib'," \
    "results file '$results', and timeout $timeout"
# An instance that leaves no file counts as not run.
echo error > "$results"
"$python" -m prunecert vnncomp "$onnx" "$vnnlib" "$results" "$timeout"
