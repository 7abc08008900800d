"""A script in another interpreter is asked and answers; whatever it does instead is said."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

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
