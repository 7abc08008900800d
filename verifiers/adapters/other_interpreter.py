"""A script that another Python interpreter runs, asked by lines of JSON over a pipe.

For a verifier that can't share this interpreter: because of its licence, or of other versions of what both need. The
script stays in the worker's process group, so that it is counted and killed with it, and ends when its input does.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunecert.printable import shortened

#: Seconds to ask an interpreter for a version.
_PATIENCE = 30.0
#: How versions on PyPI look, from their first digit on.
_VERSION = re.compile(r"[0-9][0-9A-Za-z.!+_-]*")
#: Longest part of an answer that is repeated.
_REPEATED = 80


def version_in(python: str, distribution: str) -> str | None:
    """Asks an interpreter for the version of a distribution.

    Args:
        python: Path of the interpreter.
        distribution: Name on PyPI.

    Returns:
        None where it isn't installed there.

    Raises:
        OSError: There is no such interpreter, or it doesn't answer as one.
    """
    version, failure = _asked(python, distribution)
    if failure:
        raise OSError(failure)
    return version


@functools.cache
def _asked(python: str, distribution: str) -> tuple[str | None, str]:
    """Returns the version, or else why there is no answer; that is kept, too, as asking may take long."""
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    try:
        process = subprocess.Popen(
            [python, "-I", "-c", code, distribution],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return None, str(error)
    with process:
        try:
            out, said = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            return None, f"it gave no answer within {_PATIENCE:g} s"
        finally:
            if process.returncode is None:
                # What it has started may hold its output open.
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode == 0:
        # Whatever else runs when it starts may have printed, too.
        version = (out.strip().splitlines() or [""])[-1]
        if _VERSION.fullmatch(version):
            return version, ""
        answer = f"{shortened(version, _REPEATED)!r}" if version else "nothing"
        return None, f"it answered {answer}, where a version was to be: it seems to be no Python"
    if "PackageNotFoundError" in said:
        return None, ""
    return None, (said.strip().splitlines() or [f"it ended with {process.returncode}"])[-1]


class OtherInterpreter:
    """A running script.

    Args:
        python: Path of the interpreter.
        script: The script: it reads a JSON object a line from its standard input, and writes one for each to its
            standard output. What it writes to its standard error goes into the worker's log.
        variables: Of its environment, besides this process's own, less those of Python.
    """

    def __init__(self, python: str, script: Path, variables: Mapping[str, str] | None = None) -> None:
        # What this program needs on its path must not hide what the other has.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(
            [python, "-u", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, **(variables or {})},
            text=True,
            encoding="utf-8",
        )

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request and waits for its answer; the worker's limits are those of this, too.

        Raises:
            RuntimeError: The script ended, or answered with anything but a JSON object.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            self.close()
            raise RuntimeError(
                f"the other interpreter ended with exit code {self._process.returncode}; what it wrote is in the log"
            )
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.close()
            raise RuntimeError(f"the other interpreter answered {line[:_REPEATED]!r}, which is no JSON object")
        return answer

    @property
    def running(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def close(self) -> None:
        """Ends it."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
