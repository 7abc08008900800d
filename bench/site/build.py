"""From entries to a folder of static files, put in place as a whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prunecert.bench.leaderboard.entry import Entry, dump
from prunecert.bench.leaderboard.runs import LargerRun
from prunecert.bench.leaderboard.standing import stand_ins
from prunecert.bench.site import downloads, render
from prunecert.bench.site.ranking import ranks
from prunecert.bench.site.view import families, make_rows
from prunecert.errors import UserError
from prunecert.files import scratch_beside
from prunecert.hashing import sha256_file

#: Tells a folder that we made, and may replace, from one that somebody else keeps things in.
MARK = ".prunecert-site"


def find_onnx(folder: Path | None, entries: Mapping[str, Entry]) -> dict[str, Path]:
    """Returns the networks' files by hash, of those that the entries name.

    Args:
        folder: Where ONNX files lie, at whatever depth; None: there are none.
        entries: Entries by name.

    Raises:
        UserError: There is no such folder.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise UserError(f"--onnx {folder} is refused: there is no such folder; prunecert export writes one.")
    named = {entry["files"]["onnx_sha256"] for entry in entries.values()}
    paths = sorted(path for path in folder.rglob("*.onnx") if path.is_file())
    return {sha256: path for path in paths if (sha256 := sha256_file(path)) in named}


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


@dataclass(frozen=True)
class Content:
    """What a site is made of.

    Args:
        entries: Valid entries by name.
        larger: Runs over more images, by the entry's name.
        onnx: Networks' files by hash.
        parquet: Whether to write the Parquet download.
        proofs: How many of their certificates we have checked, in words, by the entry's name.
    """

    entries: Mapping[str, Entry]
    larger: Mapping[str, LargerRun] = field(default_factory=dict)
    onnx: Mapping[str, Path] = field(default_factory=dict)
    parquet: bool = False
    proofs: Mapping[str, str] = field(default_factory=dict)


def build(content: Content, folder: Path) -> None:
    """Writes the site into an empty folder."""
    everyone = make_rows(content.entries.values(), content.larger, content.proofs)
    # A network that several suites verified has a page for each entry, and one line on the board.
    others = stand_ins([row.entry for row in everyone])
    rows = [row for row in everyone if row.name not in others]
    places = ranks(rows)
    env = render.environment()
    (folder / "entries").mkdir(parents=True)
    (folder / MARK).write_text("Made by prunecert publish, which replaces this folder as a whole.\n", encoding="utf-8")
    static = Path(render.__file__).parent
    for name in render.STATIC:
        shutil.copyfile(static / name, folder / name)
    for sha256, path in content.onnx.items():
        (folder / "onnx").mkdir(exist_ok=True)
        shutil.copyfile(path, folder / "onnx" / f"{sha256}.onnx")
    records = [downloads.record(row, places.get(row.name)) for row in everyone]
    (folder / "leaderboard.csv").write_text(downloads.csv_text(records), encoding="utf-8", newline="")
    (folder / "taxonomy.json").write_text(downloads.taxonomy_text(rows), encoding="utf-8")
    if content.parquet:
        downloads.write_parquet(records, folder / "leaderboard.parquet")
    by_family = families(rows)
    for row in everyone:
        sha256 = row.entry["files"]["onnx_sha256"]
        onnx = f"../onnx/{sha256}.onnx" if sha256 in content.onnx else None
        standing = others.get(row.name, row.name)
        also = sorted({standing, *(name for name, other in others.items() if other == standing)} - {row.name})
        family = [row if other.name == standing else other for other in by_family[row.family]]
        page = render.entry(env, row, family, places.get(row.name), onnx, also=also)
        (folder / "entries" / f"{row.name}.html").write_text(page, encoding="utf-8")
        (folder / "entries" / f"{row.name}.json").write_text(dump(row.entry), encoding="utf-8")
    board = render.index(env, rows, places, content.parquet, left_out=len(others))
    (folder / "index.html").write_text(board, encoding="utf-8")


def publish(content: Content, out: Path) -> None:
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
        build(content, beside)
        if out.exists():
            out.replace(old)
        beside.replace(out)
    finally:
        for folder in (beside, old):
            shutil.rmtree(folder, ignore_errors=True)
