"""Verifiers that are asked in this process, for tests to which the process is not the point.

A process of its own costs a quarter of a second, one or two where Numba or torch is imported. Here requests and answers
become bytes and are read again as between two processes, and all else is the worker's own code; but no limit of time or
memory holds, nothing can be killed, and what an adapter prints goes where this process prints. What processes do is
tested in tests/verifiers/process, and by tests that are marked ``processes``.
"""

from __future__ import annotations

import contextlib
import pickle
import time
import warnings
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from prunecert.verifiers.process import loaded, parent
from prunecert.verifiers.process.child import HEADER, Server, frame
from prunecert.verifiers.process.parent import ProcessError, _PlainUnpickler


class InProcess:
    """Stands where `prunecert.verifiers.process.parent.Process` does; its arguments."""

    pid: int | None = None
    peak_mb: float | None = None
    spawn_s = 0.0

    def __init__(
        self,
        *,
        log: Path | None,
        threads: int | None,
        memory_limit_mb: int | None,
        cores: Sequence[int] | None = None,
    ) -> None:
        self._server = Server()
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()

    def alive(self) -> bool:
        return True

    def tail(self) -> str:
        return ""

    def resident_mb(self) -> float:
        return 0.0

    def kill(self) -> None:
        """Nothing can be."""

    def close(self) -> None:
        self._server = Server()

    def ask(
        self,
        action: str,
        arguments: tuple[Any, ...],
        limit_s: float,
        grace_s: float,
        memory_mb: float | None = None,
    ) -> tuple[Any, float]:
        begin = time.monotonic()
        request = pickle.loads(frame((action, arguments))[HEADER.size :])
        with warnings.catch_warnings():
            # There, nobody takes them for errors.
            warnings.simplefilter("ignore")
            reply = frame(self._server.answer(request))
        answer = _PlainUnpickler(BytesIO(reply[HEADER.size :])).load()
        wall_s = time.monotonic() - begin
        if not answer["ok"]:
            raise ProcessError(answer["kind"], answer["text"], fatal=False, wall_s=wall_s, peak_mb=None, tail="")
        return answer, wall_s


@contextlib.contextmanager
def verifiers() -> Iterator[None]:
    """Has all verifiers asked in this process meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (loaded, parent):
            patch.setattr(module, "Process", InProcess)
        yield
