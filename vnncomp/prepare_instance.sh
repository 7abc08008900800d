#!/usr/bin/env bash
# VNN-COMP: before each instance. Usage: prepare_instance.sh VERSION CATEGORY ONNX VNNLIB. Exit 0: the instance is run.
set -euo pipefail
if [ "${1:-}" != "v1" ]; then
    echo "Expected first argument (version string) 'v1', got '${1:-}'" >&2
    exit 1
fi
category=${2:?category} onnx=${3:?ONNX file} vnnlib=${4:?VNN-LIB file}
echo "Preparing prunecert for instance in category '$category' with onnx file '$onnx' and vnnlib file '$vnnlib'"
for file in "$onnx" "$vnnlib"; do
    if [ ! -f "$file" ] && [ ! -f "$file.gz" ]; then
        echo "There is no file $file" >&2
        exit 1
    fi
done
# Kernels that install_tool.sh has not compiled, say for another processor, are compiled here, and not within the limit.
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PRUNECERT_PYTHON:-$checkout/.venv/bin/python}
"$python" -c 'from prunecert.verifiers.process.worker import prepare_verifiers as p; p(["sparse-bab"])'
# Nothing of an earlier instance runs on: a verifier's process ends with the command that started it.
