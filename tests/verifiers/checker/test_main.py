from __future__ import annotations

import ast
import io
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

from prunecert.verifiers import checker
from prunecert.verifiers.checker.__main__ import main
from tests.verifiers.checker import kit

FOLDER = Path(checker.__file__).parent
#: What decides whether a proof holds; the other modules read files, or are the entrance.
RULES = ("bounds", "nodes", "parabolas", "proof", "witness")
READERS = ("files", "network", "onnxfile", "vnnlibfile")
#: Lines with code of the rules, and of all modules; these may only shrink, and docs/certificates.md says them.
MOST_RULES, MOST_LINES = 545, 896


def code_lines(source: str) -> int:
    """Counts lines with code: no comments, no docstrings, no empty lines."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            documented |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - documented)


def test_the_checker_stays_short() -> None:
    lines = {path.stem: code_lines(path.read_text()) for path in FOLDER.glob("*.py")}
    assert lines.keys() == {*RULES, *READERS, "__init__", "__main__"}
    assert (sum(lines[name] for name in RULES), sum(lines.values())) == (MOST_RULES, MOST_LINES)
    words = " ".join((Path(__file__).parents[3] / "docs" / "certificates.md").read_text().split())
    readers = sum(lines[name] for name in READERS)
    assert f"{MOST_RULES} lines of rules and {readers} of readers, {MOST_LINES} in all" in words


def test_the_checker_imports_numpy_and_the_standard_library_alone() -> None:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [] if node.level == 1 else [node.module or ""]
                assert node.level < 2, f"{path.name} reaches outside its folder"
            for name in names:
                top = name.split(".")[0]
                assert top == "numpy" or top in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_the_bare_folder_checks_a_certificate(tmp_path: Path) -> None:
    files = kit.questions("conv-skip")[3]
    (tmp_path / "proof").write_bytes(files.certificate(files.proof().encoded()))
    shutil.copytree(FOLDER, tmp_path / "checker")
    # In isolated mode nothing of this checkout is on the path; then modules other than NumPy's would be found missing.
    code = (
        "import sys, runpy; sys.path.insert(0, '.'); sys.argv[0] = 'checker'\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('prunecert', 'scipy', 'onnx', 'torch', 'numba', 'msgspec'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "runpy.run_module('checker', run_name='__main__')\n"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", code, "proof", files.onnx, files.vnnlib],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("unsat, checked: ")


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, other = kit.questions("conv-skip")[3], kit.questions("skip")[0]
    proof = tmp_path / "proof"
    proof.write_bytes(files.certificate(files.proof().encoded()))
    assert main([str(proof), str(files.onnx), str(files.vnnlib)]) == 0
    assert main([str(proof), str(other.onnx), str(files.vnnlib)]) == 1
    assert main([str(files.onnx), str(files.onnx), str(files.vnnlib)]) == 2
    assert main([]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["unsat, checked", "refused", "unreadable", "usage"]
