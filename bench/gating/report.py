"""Where a gate's outcome is told: files, the terminal, and GitHub's page; and a refusal in the same places."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from prunecert.bench.gating import badge, github, junit, markdown, series, table
from prunecert.bench.gating.result import GateResult
from prunecert.errors import UserError
from prunecert.files import write_text

#: What a gate that could compare leaves in its report folder beside ``junit.xml``.
WRITTEN = ("gate.json", "gate.md", "benchmark-bigger.json", "benchmark-smaller.json", "badge.json", "badge.svg")


class GateReport:
    """The report of one gate.

    Args:
        folder: Where the files go; None: into a folder of the run, see `lies_in`.
        environment: Environment variables; ``GITHUB_ACTIONS`` and ``GITHUB_STEP_SUMMARY`` are looked at.

    Raises:
        UserError: The folder is a file.
    """

    def __init__(self, folder: Path | None, environment: Mapping[str, str]) -> None:
        if folder is not None and folder.exists() and not folder.is_dir():
            raise UserError(f"--report {folder} is refused: it is a file; give a folder.")
        self.folder = folder
        self._named = folder is not None
        self._environment = environment

    def lies_in(self, run: Path) -> None:
        """Says which run is gated: its folder ``gate`` has the files if no other was named."""
        self.folder = self.folder or run / "gate"

    @contextlib.contextmanager
    def refusals(self) -> Iterator[None]:
        """Leaves a refusal where CI looks, so that reports of an earlier gate don't pass for this one's."""
        try:
            yield
        except UserError as error:
            # A mistyped --run is not to be made into a folder.
            there = self._named or (self.folder is not None and self.folder.parent.is_dir())
            self._refuse(str(error), self.folder if there else None)
            raise

    def _refuse(self, message: str, folder: Path | None) -> None:
        if folder is not None:
            for name in WRITTEN:
                (folder / name).unlink(missing_ok=True)
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "junit.xml", junit.render_refusal(message))
        github.append_summary(self._environment, markdown.render_refusal(message))
        if github.active(self._environment):
            print(github.annotation("error", "bench.gate", message))

    def tell(self, result: GateResult, console: Console) -> None:
        """Shows a result, writes it, and gives GitHub what it can show."""
        assert self.folder is not None
        table.show(result, console)
        names = write(result, self.folder)
        console.print(f"wrote {', '.join(names)} in {self.folder}", markup=False, soft_wrap=True)
        github.append_summary(self._environment, markdown.render(result))
        if github.active(self._environment):
            for line in github.commands(result):
                print(line)


def write(result: GateResult, folder: Path) -> tuple[str, ...]:
    """Writes the files of a report; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "junit.xml": junit.render(result),
        "gate.md": markdown.render(result),
        "gate.json": _json(result.to_json()),
        "benchmark-bigger.json": _json(series.bigger_is_better(result)),
        "benchmark-smaller.json": _json(series.smaller_is_better(result)),
        "badge.json": _json(badge.endpoint(result)),
        "badge.svg": badge.svg(result),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return tuple(texts)


def _json(data: object) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"
