"""Reads the files of tasks before a verifier is asked: what can't be read costs no other row of a list its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from prunecert.bench.results.vnncomp import Task
from prunecert.bench.running.properties import Problem, compacted, prepare
from prunecert.compaction import Mode
from prunecert.errors import UserError
from prunecert.hashing import digest
from prunecert.printable import say, shortened


@dataclass(frozen=True)
class UnreadableRow:
    """A row of an instance list that can't be asked: it ends in `error`, and no other row suffers.

    Args:
        task: The row.
        reason: Why, in one sentence.
    """

    task: Task
    reason: str

    @property
    def key(self) -> str:
        """Stands for the row and its reason."""
        return digest([str(self.task.onnx), str(self.task.vnnlib), self.reason])


def in_words(error: Exception) -> str:
    """Returns an exception in one line; one that nobody foresaw with its class."""
    text = str(error).strip().partition("\n")[0]
    return shortened(text if isinstance(error, UserError) else f"{type(error).__name__}: {text}", 1_000)


class ProblemReader:
    """Reads the files of tasks, and compacts networks, each once.

    Args:
        scratch: Folder for networks that have to be unpacked.
        mode: What compaction removes.
        folder: Where compact networks go.
    """

    def __init__(self, scratch: Path, mode: Mode, folder: Path) -> None:
        self._scratch = scratch
        self._mode = mode
        self._folder = folder
        self._unpacked: dict[Path, Path] = {}
        self._compacted: dict[str, Problem] = {}

    def entry(self, task: Task) -> Problem | UnreadableRow:
        """Returns what can be asked of a task, or why nothing can."""
        if task.refusal:
            return UnreadableRow(task, task.refusal)
        try:
            return self._shrunk(prepare(task, self._scratch, self._unpacked))
        except UserError as error:
            return UnreadableRow(task, in_words(error))
        except Exception as error:
            # Readers of networks raise anything; one file of a list costs no other its answer.
            return UnreadableRow(
                task, f"{shortened(task.onnx, 200)} with {shortened(task.vnnlib, 200)}: {in_words(error)}"
            )

    def _shrunk(self, problem: Problem) -> Problem:
        """Returns a problem with its network's compact form, and says what became of a network seen first."""
        sha256 = problem.onnx_sha256
        if sha256 not in self._compacted or self._compacted[sha256].refusal:
            self._compacted[sha256] = compacted(problem, self._mode, self._folder)
            record = self._compacted[sha256].compaction
            if record is not None:
                say(f"{problem.task.onnx.name}: {record.describe()}")
        first = self._compacted[sha256]
        return replace(problem, compact=first.compact, compact_sha256=first.compact_sha256, compaction=first.compaction)
