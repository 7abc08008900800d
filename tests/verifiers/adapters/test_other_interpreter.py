"""A script in another interpreter is asked and answers; whatever it does instead is said."""

from __future__ import annotations

import re
import sys
import textwrap
import time
from pathlib import Path

import pytest

from prunecert.verifiers.adapters import other_interpreter
from prunecert.verifiers.adapters.other_interpreter import OtherInterpreter, version_in

ECHO = """
    import json, os, sys
    for line in sys.stdin:
        request = json.loads(line)
        print("a word to the log", file=sys.stderr)
        if request.get("die"):
            sys.exit(request["die"])
        print("no JSON" if request.get("babble") else json.dumps({"got": request, "path": os.getenv("PYTHONPATH")}))
        sys.stdout.flush()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "echo.py"
    path.write_text(textwrap.dedent(ECHO))
    return path


def test_requests_are_answered_one_by_one(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "of this program")
    other = OtherInterpreter(sys.executable, script)
    assert [other.ask({"n": n, "ü": [1.5]})["got"] for n in range(3)] == [{"n": n, "ü": [1.5]} for n in range(3)]
    assert other.ask({})["path"] is None
    assert other.running
    other.close()
    assert not other.running


def test_an_end_is_said_with_its_exit_code(script: Path) -> None:
    other = OtherInterpreter(sys.executable, script)
    with pytest.raises(RuntimeError, match="exit code 7"):
        other.ask({"die": 7})
    with pytest.raises((RuntimeError, ValueError)):
        other.ask({})


def test_what_is_no_json_is_an_error_and_the_end(script: Path) -> None:
    other = OtherInterpreter(sys.executable, script)
    with pytest.raises(RuntimeError, match=r"'no JSON.*no JSON object"):
        other.ask({"babble": True})
    assert not other.running


def test_versions_are_those_of_the_other() -> None:
    assert version_in(sys.executable, "numpy")
    assert version_in(sys.executable, "a-distribution-that-nobody-made") is None
    with pytest.raises(OSError, match="nobody"):
        version_in("/nobody/python", "numpy")
    with pytest.raises(OSError, match="ended with 1"):
        version_in("/bin/false", "numpy")


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("exit 0", 0o755, "it answered nothing, where a version was to be"),
        ("echo 1.2 or so", 0o755, "it answered '1.2 or so'"),
        ("printf '\\377\\n'", 0o755, "where a version was to be"),
        ("sleep 60 & sleep 60", 0o755, "no answer within 0.3 s"),
        ("exit 0", 0o644, "Permission denied"),
        (None, 0o755, "Permission denied"),
    ],
)
def test_what_is_no_interpreter_is_said(
    text: str | None, mode: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_interpreter, "_PATIENCE", 0.3 if text and "sleep" in text else 30.0)
    python = tmp_path / "python"
    if text is None:
        python.mkdir()
    else:
        python.write_text(f"#!/bin/sh\n{text}\n")
    python.chmod(mode)
    begin = time.monotonic()
    for _ in range(2):
        with pytest.raises(OSError, match=re.escape(said)):
            version_in(str(python), "numpy")
    assert time.monotonic() - begin < 20


def test_a_greeting_before_the_version_is_left_out(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho welcome\necho 1.4.2rc1\n")
    python.chmod(0o755)
    assert version_in(str(python), "numpy") == "1.4.2rc1"
