"""Make the leaderboard site from the entries in a results folder: static files, no server, no outside requests."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunecert.bench.leaderboard.check import check_tree
from prunecert.bench.leaderboard.entry import Entry, entry_files
from prunecert.bench.leaderboard.proofs import read_record
from prunecert.errors import EXIT_OK, UserError, run_main
from prunecert.files import scratch_beside
from prunecert.printable import say

#: Tells a folder that we made, and may replace, from one that somebody else keeps things in.
MARK = ".prunecert-site"
_SHOWN = 10


def parser() -> argparse.ArgumentParser:
    """Returns the command's argument parser."""
    parser = argparse.ArgumentParser(prog="prunecert publish", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="the results folder")
    parser.add_argument("--out", type=Path, default=Path("site"), help="folder of the site (default: site); replaced")
    parser.add_argument("--skip-invalid", action="store_true", help="leave out entries that bench.check refuses")
    return parser


def read(results: Path, skip_invalid: bool) -> tuple[dict[str, Entry], list[str]]:
    """Returns the valid entries by name, and what is to be said of the others.

    Raises:
        UserError: There is no entry, no valid one, or an invalid one that is not to be skipped.
    """
    if not entry_files(results):
        raise UserError(f"{results} holds no leaderboard entry; make some with bench.run --submit.")
    good, problems = check_tree(results)
    if problems and not skip_invalid:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UserError(
            f"{results} holds entries with problems, so nothing is published; mend them, or leave them out with "
            "--skip-invalid:",
            [*map(str, problems[:_SHOWN]), *more],
        )
    if not good:
        raise UserError(f"{results} holds no valid leaderboard entry; see python -m bench.check {results}.")
    return good, [f"left out: {problem}" for problem in problems]


def check_target(out: Path) -> None:
    """Refuses to replace anything that is not an earlier site.

    Raises:
        UserError: The folder holds something else, or is a file.
    """
    if not out.resolve().name:
        raise UserError(f"--out {out} is refused: it is the root of the file system; choose a new folder.")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).is_file())):
        raise UserError(f"--out {out} is refused: it holds something that is no site of ours; choose a new folder.")
    # It is replaced as a whole, so that its own rights would not be asked.
    if out.exists() and not os.access(out, os.W_OK | os.X_OK):
        raise UserError(f"--out {out} is refused: this user may not write into it; choose another folder.")


def build(entries: Mapping[str, Entry], folder: Path, parquet: bool, proofs: Mapping[str, str] | None = None) -> None:
    """Writes the site into an empty folder.

    Args:
        entries: Valid entries by name.
        folder: Where.
        parquet: Whether to write the Parquet download.
        proofs: How many of their certificates we have checked, in words, by name.
    """
    from prunecert.bench.leaderboard.entry import dump
    from prunecert.bench.site import downloads, render
    from prunecert.bench.site.view import families, make_rows

    rows = make_rows(entries.values(), proofs)
    env = render.environment()
    (folder / "entries").mkdir(parents=True)
    (folder / MARK).write_text("Made by bench.publish, which replaces this folder as a whole.\n", encoding="utf-8")
    static = Path(render.__file__).parent
    for name in render.STATIC:
        shutil.copyfile(static / name, folder / name)
    records = [downloads.record(row) for row in rows]
    (folder / "leaderboard.csv").write_text(downloads.csv_text(records), encoding="utf-8", newline="")
    if parquet:
        downloads.write_parquet(records, folder / "leaderboard.parquet")
    for members in families(rows).values():
        for row in members:
            page = render.entry(env, row, members)
            (folder / "entries" / f"{row.name}.html").write_text(page, encoding="utf-8")
            (folder / "entries" / f"{row.name}.json").write_text(dump(row.entry), encoding="utf-8")
    (folder / "index.html").write_text(render.index(env, rows, parquet), encoding="utf-8")


def publish(entries: Mapping[str, Entry], out: Path, parquet: bool, proofs: Mapping[str, str] | None = None) -> None:
    """Builds the site beside `out` and puts it in place as a whole.

    Raises:
        UserError: `out` holds something else than an earlier site.
    """
    check_target(out)
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = scratch_beside(out)
    old = beside.with_suffix(".old")
    for folder in (beside, old):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        build(entries, beside, parquet, proofs)
        if out.exists():
            out.replace(old)
        beside.replace(out)
    finally:
        for folder in (beside, old):
            shutil.rmtree(folder, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Returns:
        0.

    Raises:
        UserError: There is nothing valid to publish, or the target is not ours to replace.
    """
    from prunecert.bench.site.downloads import has_pyarrow

    options = parser().parse_args(sys.argv[1:] if argv is None else argv)
    began = time.monotonic()
    check_target(options.out)
    entries, remarks = read(options.results, options.skip_invalid)
    for remark in remarks:
        say(remark)
    parquet = has_pyarrow()
    if not parquet:
        print("no Parquet download: pyarrow is not installed; pip install 'prunecert[publish]' brings it.")
    records = {name: read_record(entry_files(options.results)[0].parent, entry) for name, entry in entries.items()}
    proofs = {name: record.words for name, record in records.items() if record is not None}
    publish(entries, options.out, parquet, proofs)
    print(f"{len(entries)} entries in {time.monotonic() - began:.1f} s; open {options.out / 'index.html'}")
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
