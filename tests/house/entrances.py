"""Public entrances: what a caller of the packages takes hold of first, each with an example that is run."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house import modules

#: ``module:name``, of classes, functions, and registries (whose example is in their module's docstring).
ENTRANCES = (
    "prunecert.compaction:Compaction",
    "prunecert.errors:UserError",
    "prunecert.errors:did_you_mean",
    "prunecert.files:read_regular",
    "prunecert.files:replacing",
    "prunecert.hashing:canonical_json",
    "prunecert.hashing:digest",
    "prunecert.jsontext:parse_json",
    "prunecert.onnx.check:check",
    "prunecert.onnx.count:count_layers",
    "prunecert.onnx.count:count_shapes",
    "prunecert.onnx.io:identity",
    "prunecert.onnx.io:load_model",
    "prunecert.onnx.normal:is_normal",
    "prunecert.onnx.normalise:normalise",
    "prunecert.printable:printable",
    "prunecert.registry:Registry",
    "prunecert.bench.report.medium:Table",
    "prunecert.bench.results.outcome:contradictions",
    "prunecert.bench.results.outcome:settle",
    "prunecert.bench.results.ratios:par2",
    "prunecert.bench.results.stats:wilson",
    "prunecert.bench.results.store:Log",
    "prunecert.bench.running.run:run_suite",
    "prunecert.bench.schema.suite:load_suite",
    "prunecert.models:NETWORKS",
    "prunecert.models:OBJECTIVES",
    "prunecert.models:PRUNERS",
    "prunecert.models.checkpoint:load_model",
    "prunecert.models.export:export_model",
    "prunecert.models.masks:Masks",
    "prunecert.verifiers:VERIFIERS",
    "prunecert.verifiers.base:Instance",
    "prunecert.verifiers.formats.onnx_torch:read_onnx",
    "prunecert.verifiers.formats.vnnlib:read_property",
    "prunecert.verifiers.output_spec:OutputSpec",
    "prunecert.verifiers.settings:Setting",
)


def examples(source: Path) -> set[str]:
    """Returns the names at a module's top that have an example: their own, a method's, or the module's for a value."""
    tree = ast.parse(source.read_bytes())
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                parts = [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef | ast.ClassDef)]
                if any(">>> " in (ast.get_docstring(part) or "") for part in parts):
                    names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                lines = (ast.get_docstring(tree) or "").splitlines()
                if any(line.startswith(">>> ") and name in line for line in lines):
                    names.add(name)
    return names


def public(source: Path) -> set[str]:
    """Returns the names that a module defines at its top."""
    names: set[str] = set()
    for node in ast.parse(source.read_bytes()).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


def missing() -> list[str]:
    """Returns the entrances that are not there (any more)."""
    files = modules()
    parts = [(entrance, *entrance.split(":")) for entrance in ENTRANCES]
    return [entrance for entrance, module, name in parts if module not in files or name not in public(files[module])]


def without_examples() -> list[str]:
    """Returns the entrances that have no example, of those that are there."""
    files, absent = modules(), missing()
    parts = [(entrance, *entrance.split(":")) for entrance in ENTRANCES if entrance not in absent]
    return sorted(entrance for entrance, module, name in parts if name not in examples(files[module]))
