"""Verifier processes that stay warm between calls: a notebook asks again and again, and starting one takes seconds."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunecert.hashing import digest
from prunecert.verifiers.base import Instance, Verdict
from prunecert.verifiers.process.worker import Worker

#: Exported networks that are kept while nobody asks about them; a worker has its last one's path.
SHELF = 8


class Crew:
    """Workers by verifier, settings and device, started when they are first asked.

    May be used from any thread: questions to one verifier wait for each other. The processes are started as programs
    of their own, not by `multiprocessing`, so that nothing depends on an ``if __name__ == "__main__"``, and they end
    with this process. A forked child starts its own.
    """

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._lock = threading.Lock()
        #: The parent's, which a forked child must neither use nor close.
        self._foreign: list[Worker] = []

    def ask(
        self, verifier: str, instances: Sequence[Instance], *, settings: Mapping[str, Any] | None, device: str
    ) -> list[Verdict]:
        """Answers instances; see `Worker.verify`.

        Raises:
            UserError: The verifier, a setting or the device is unknown, or the verifier isn't installed.
        """
        return self._worker(verifier, settings, device).verify(instances)

    def _worker(self, verifier: str, settings: Mapping[str, Any] | None, device: str) -> Worker:
        key = digest([verifier, device, dict(settings or {})])
        with self._lock:
            worker = self._workers.get(key)
            if worker is None or worker.closed():
                worker = self._workers[key] = Worker(verifier, settings, device)
            return worker

    def close(self) -> None:
        """Ends all processes; the next question starts new ones."""
        with self._lock:
            workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.close()

    def leave_behind(self) -> None:
        """Lets go of the workers of the process that this one was forked from."""
        self._lock = threading.Lock()
        self._foreign += self._workers.values()
        self._workers = {}


class Shelf:
    """Exported networks, each under a name of its content: a worker that has it loaded finds it there again."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock = threading.Lock()
        self._in_use: Counter[Path] = Counter()
        #: By their last use, the oldest first.
        self._order: dict[Path, None] = {}

    def folder(self) -> Path:
        """Returns a folder of this process, which goes with it."""
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="prunecert-"))
            return self._folder

    def clear(self) -> None:
        """Removes the folder; the next network gets a new one."""
        with self._lock:
            folder, self._folder = self._folder, None
            self._order.clear()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def holding(self, scratch: Path, sha256: str) -> Iterator[Path]:
        """Yields where a network lies for the while, and removes those that nobody has used for long.

        Args:
            scratch: The network in `folder`; it is moved.
            sha256: Hash of it.
        """
        path = self.folder() / f"network-{sha256[:32]}.onnx"
        with self._lock:
            if path.exists():
                scratch.unlink()
            else:
                scratch.replace(path)
            self._in_use[path] += 1
            self._order.pop(path, None)
            self._order[path] = None
        try:
            yield path
        finally:
            with self._lock:
                self._in_use[path] -= 1
                idle = [other for other in self._order if not self._in_use[other]]
                for other in idle[: max(0, len(idle) - SHELF)]:
                    del self._order[other]
                    other.unlink(missing_ok=True)

    def leave_behind(self) -> None:
        """Lets go of the folder of the process that this one was forked from, which removes it."""
        self._lock = threading.Lock()
        self._folder = None
        self._in_use.clear()
        self._order.clear()


#: This process's.
CREW, NETWORKS = Crew(), Shelf()
# Temporary folders are removed when a program ends, with a warning, by a function that the first of them registers.
# What is registered last runs first: processes end, and remove their folders, before that.
weakref.finalize(CREW, int)
atexit.register(NETWORKS.clear)
atexit.register(CREW.close)
os.register_at_fork(after_in_child=CREW.leave_behind)
os.register_at_fork(after_in_child=NETWORKS.leave_behind)


def close() -> None:
    """Ends the verifier processes that `prunecert.verify` and `prunecert.evaluate` keep warm.

    They end with the program anyway; this gives their memory back before. The next call starts new ones.
    """
    CREW.close()
