"""Answers questions with Vibecheck; run by the interpreter that has it, never imported by this program.

A request is a line of JSON: ``{"onnx", "property", "timeout", "device", "attack"}``, paths and text; the answer has
``word`` and, for a counterexample, ``witness``, or else ``error``. The first, ``{"hello": true}``, is answered with the
word ``ready``, or ``error`` where Vibecheck can't be imported. It needs the standard library and Vibecheck alone.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
from typing import Any, TextIO


def answer(verify: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Answers one request with Vibecheck's function `verify`."""
    try:
        result = verify(
            request["onnx"],
            request["property"],
            timeout=request["timeout"],
            device=request["device"],
            extra_args=[] if request["attack"] else ["--no-attack"],
        )
        inputs = [value for name, value in (result.counterexample or {}).items() if name.upper().startswith("X")]
        details = result.details if isinstance(result.details, dict) else {}
        return {
            "word": str(result.verdict),
            "witness": inputs[0].reshape(-1).tolist() if inputs else None,
            "error": str(details.get("error", "")),
        }
    except (Exception, SystemExit) as error:
        # Whatever it raises is its failure, and said.
        return failed(error)


def failed(error: BaseException) -> dict[str, Any]:
    """Returns the answer that says what was raised."""
    return {"word": "error", "witness": None, "error": f"{type(error).__name__}: {error}"}


def read(requests: queue.Queue[str]) -> None:
    """Queues lines as they come; where there are no more, nobody waits for an answer, in the midst of a search too."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def main() -> None:
    """Answers requests until they end."""
    # What libraries print, in C as well, must not get among the answers.
    replies: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=read, args=(requests,), daemon=True).start()
    verify, hello = None, {"word": "ready"}
    try:
        verify = importlib.import_module("vibecheck").verify
    except (Exception, SystemExit) as error:
        hello = failed(error)
    while True:
        request = json.loads(requests.get())
        reply = hello if request.get("hello") or verify is None else answer(verify, request)
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
