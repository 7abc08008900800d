"""How far training is, for people: one line on a terminal that is kept up to date, a line an epoch elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from prunecert.models.history import HeldOutAccuracy
    from prunecert.models.pipeline import Job
    from prunecert.models.reports import EpochReport, StepReport

#: Seconds between two changes of a terminal's line, and between two lines within an epoch elsewhere.
_REDRAWN_S, _SAID_S = 0.2, 300.0
#: Of an epoch, below which nothing is said of the time that is left.
_LEAST_DONE = 0.2
#: A head is cut down to so many characters rather than that a word is left out.
_LEAST_HEAD = 18
_WORDS = {"clean": "clean", "pgd": "PGD", "crown_ibp": "proved", "ibp": "proved", "noisy": "noisy"}


class TrainingProgress:
    """Says how far training is, with an estimate of the rest.

    Args:
        jobs: All jobs to come.
        stream: Where to; standard error by default.
    """

    def __init__(self, jobs: Sequence[Job], stream: TextIO | None = None) -> None:
        self._jobs = jobs
        self._stream = sys.stderr if stream is None else stream
        self._drawn = self._stream.isatty()
        #: Epochs of pre-trainings that no cell has come past yet.
        self._pretrainings = {str(job.pretraining()): job.recipe.pretrain_epochs for job in jobs if job.pretrains}
        self._pretraining = ""
        own = sum(job.recipe.pretrain_epochs for job in jobs if job.from_scratch)
        self._left = sum(self._pretrainings.values()) + own + sum(job.epochs for job in jobs)
        self._done = 0
        self._said = time.monotonic()
        #: When the first step was over, and how many epochs were done then: what comes before it comes once.
        self._start: tuple[float, float] | None = None
        self._stage = ""
        self._open_line = False
        self._label, self._noise, self._loss = "", False, ""
        self._held_out = ""

    def begin(self, number: int, job: Job) -> None:
        """Starts a cell; cells before it that were found done no longer count."""
        from prunecert.models import NOISE_OBJECTIVES

        self._label = f"[{number}/{len(self._jobs)}] {job.name}"
        self._noise = job.objective in NOISE_OBJECTIVES
        self._pretraining = str(job.pretraining()) if job.pretrains else ""
        self._loss = self._held_out = self._stage = ""

    def step(self, report: StepReport) -> None:
        """Shows a step, but not more often than anybody could read."""
        now = time.monotonic()
        if report.stage != self._stage:
            # Epochs that an earlier process has trained are not to come.
            self._stage = report.stage
            self._left -= report.epoch - 1
            epochs = self._pretrainings.pop(self._pretraining, 0)
            if report.stage != "pretrain":
                # It was found.
                self._left -= epochs
        if self._start is None:
            self._start = now, report.step / report.steps
        if now - self._said < (_REDRAWN_S if self._drawn else _SAID_S):
            return
        share = report.step / report.steps
        where = [f"{report.stage} {report.epoch}/{report.epochs}", f"{share:.0%}", self._radius(report.eps)]
        self._say([*where, self._loss, self._eta(self._done + share)], end=False)

    def epoch(self, report: EpochReport) -> None:
        """Shows an epoch."""
        self._done += 1
        self._loss = f"loss {report.loss:.4g}"
        if report.held_out is not None:
            self._held_out = told(report.held_out)
        over = report.epoch == report.epochs
        where = [f"{report.stage} {report.epoch}/{report.epochs}", self._radius(report.eps), self._loss]
        if self._drawn:
            held_out = self._held_out if over or report.held_out is not None else ""
            self._say([*where, held_out, self._eta(self._done)], end=over)
        else:
            held_out = "" if report.held_out is None else f"held out ({report.held_out.images}): {self._held_out}"
            self._say([*where, f"{report.rate:,.0f} images/s", self._eta(self._done), held_out], end=True)

    def _radius(self, eps: float) -> str:
        return f"σ {eps:.3g}" if self._noise else f"ε {255 * eps:.2f}/255"

    def _eta(self, epochs: float) -> str:
        """Returns the time that the rest will take, if it goes on as so far."""
        if self._start is None or epochs - self._start[1] < _LEAST_DONE:
            return "estimating"
        pace = (time.monotonic() - self._start[0]) / (epochs - self._start[1])
        return f"{shown_seconds(pace * max(0.0, self._left - epochs))} left"

    def end(self) -> None:
        """Ends a line that would be drawn again: something else is to be said."""
        if self._open_line:
            print(file=self._stream, flush=True)
            self._open_line = False

    def _say(self, words: Sequence[str], *, end: bool) -> None:
        self._said = time.monotonic()
        if not self._drawn:
            print("  ".join(word for word in (self._label, *words) if word), file=self._stream, flush=True)
            return
        self._open_line = not end
        width = shutil.get_terminal_size((80, 24)).columns - 1
        print(f"\r\033[K{fitted(self._label, words, width)}", end="\n" if end else "", file=self._stream, flush=True)


def told(accuracy: HeldOutAccuracy) -> str:
    """Returns accuracies in a few words: ``clean 61 % PGD 44 % proved 37 %``, by the tightest bounds."""
    shares = {name: getattr(accuracy, name) for name in _WORDS}
    if shares["crown_ibp"] is not None:
        shares["ibp"] = None
    return " ".join(f"{_WORDS[name]} {100 * share:.0f} %" for name, share in shares.items() if share is not None)


def shown_seconds(seconds: float) -> str:
    """Returns a time as people say it: ``2.5 h``, ``25 min``, ``40 s``.

    Example:
        >>> shown_seconds(40), shown_seconds(1500), shown_seconds(9000)
        ('40 s', '25 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds <= 5400 else f"{seconds / 3600:.1f} h"


def fitted(head: str, words: Sequence[str], width: int) -> str:
    """Returns a line of at most `width` characters: the head is cut in its middle, then words go, the last ones last.

    Example:
        >>> fitted("[1/2] cnn-small_ibp_eps2_lwm_x10_s0", ["finetune 3/20", "45%", "12 min left"], 60)
        '[1/2] cnn-sma…s2_lwm_x10_s0  finetune 3/20  45%  12 min left'

    Args:
        head: What is told of.
        words: What is told, the most important first but for the last one.
        width: Characters.
    """
    kept = [word for word in words if word]
    while len(kept) > 2 and sum(len(word) + 2 for word in kept) + min(len(head), _LEAST_HEAD) > width:
        del kept[-2]
    room = width - sum(len(word) + 2 for word in kept)
    if len(head) > room:
        room = max(room, 3)
        head = head[: room // 2] + "…" + head[len(head) - (room - room // 2 - 1) :]
    return "  ".join([head, *kept])[: max(width, 0)]
