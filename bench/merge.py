"""Join the parts of a run (`bench.run --shard I/N --out DIR`) into one run directory."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.progress import Output
from bench.run import conclude
from bench.store import Log, Row, is_run, writer_files
from prunecert.errors import UserError, run_main

_SAME = ("suite", "profile", "suite_digest", "device")


def check_parts(parts: Sequence[Path]) -> dict[Path, list[Row]]:
    """Returns the latest session of each file of each part.

    Raises:
        UserError: A part is no run, is damaged, or is of another suite, profile, device or data than the first.
    """
    latest: dict[Path, dict[str, Row]] = {part: {} for part in parts}
    reference: tuple[Path, Row] | None = None
    for part in parts:
        for row in Log(part).rows():
            if row["type"] == "session":
                latest[part][row["writer"]] = row
        for row in latest[part].values():
            if any("timing" in cell for cell in row["cells"]):
                raise UserError(
                    f"{part} cannot be joined: its rows are times, and times of different runs are never put together."
                )
            if reference is None:
                reference = (part, row)
            for key in _SAME:
                if row[key] != reference[1][key]:
                    raise UserError(
                        f"{part} cannot be joined with {reference[0]}: their {key} differ ({row[key]!r} and "
                        f"{reference[1][key]!r}); only parts of the same run can be joined."
                    )
            if _prints(row) != _prints(reference[1]):
                raise UserError(
                    f"{part} cannot be joined with {reference[0]}: they were run on different data "
                    f"({_prints(row)} and {_prints(reference[1])})."
                )
    return {part: list(rows.values()) for part, rows in latest.items()}


def _prints(session: Row) -> dict[str, str]:
    return {data["split"]: data["fingerprint"][:16] for data in session["data"]}


def merge(parts: Sequence[Path], out: Path) -> None:
    """Copies the rows and counterexamples of all parts into `out`; each part's files keep apart by their names.

    Raises:
        UserError: The parts don't fit together, two hold a file of the same name, or `out` holds a run already.
    """
    if out.exists() and (is_run(out) or any(part.resolve() == out.resolve() for part in parts)):
        raise UserError(f"--out {out} is refused: it holds a run already; choose a new directory.")
    if len({part.resolve() for part in parts}) < len(parts):
        raise UserError("A part is given twice; name each part once.")
    check_parts(parts)
    out.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts, start=1):
        for source in writer_files(part):
            match = re.fullmatch(r"instances\.(.+)\.jsonl", source.name)
            assert match is not None
            writer = f"part{number}-{match[1]}"
            _copy_rows(source, out / f"instances.{writer}.jsonl", match[1], writer)
        if (part / "witnesses").is_dir():
            shutil.copytree(part / "witnesses", out / "witnesses", dirs_exist_ok=True, ignore=_scratch)


def _scratch(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".tmp")]


def _copy_rows(source: Path, target: Path, writer: str, renamed: str) -> None:
    """Copies whole lines, with the writer's name changed where it stands, so that two parts' sessions keep apart."""
    old, new = f'"writer":"{writer}"'.encode(), f'"writer":"{renamed}"'.encode()
    with source.open("rb") as lines, target.open("wb") as stream:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            if line.startswith((b'{"type":"session"', b'{"type":"end"')):
                line = line.replace(old, new, 1)
            stream.write(line)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring. Exit codes as `bench.run`."""
    parser = argparse.ArgumentParser(prog="python -m bench.merge", description=__doc__)
    parser.add_argument("parts", nargs="+", type=Path, metavar="RUN", help="run directories of the parts")
    parser.add_argument("--out", type=Path, required=True, help="run directory to make")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    merge(options.parts, options.out)
    return conclude(options.out, Output())


if __name__ == "__main__":
    run_main(main)
