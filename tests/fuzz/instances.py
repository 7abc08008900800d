"""Gives the reader of instance lists many that are valid or broken: ``python -m tests.fuzz.instances N SEED``.

Right is a list in which each row that was left alone is answered as it stands, in its place, whatever stands in the
others; wrong are any exception but a printable `UserError` for what is no list at all, a row that is lost, changed or
refused for another's fault, and two different rows with one name.
"""

from __future__ import annotations

import gzip
import random
import sys
from collections import Counter
from pathlib import Path

from prunecert.bench.results.vnncomp import Task, read_rows
from prunecert.errors import UserError
from tests.fuzz.harness import presentable, run_files

#: Characters of a sentence about one file.
_LONGEST = 1_000


_PARTS = [
    ",", ",,", '"', "'", "\\", "/", "../", "#", " ", "\t", "\x00", "\x1b[31m", "é", "\u2028", ";", "nan", "1e999", "-1",
    "x" * 300, "y" * 5_000, "z" * 132_000, "%s", "\x0b", "1" * 400, "\ufeff",
]  # fmt: skip


def make(folder: Path) -> list[str]:
    """Writes files, and returns good rows."""
    rows = []
    for net in ("net", "b/net", "c/b/net"):
        (folder / f"{net}.onnx").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{net}.onnx").write_bytes(b"onnx")
        for name in ("p", "q"):
            (folder / f"{name}.vnnlib").write_bytes(b"property")
            rows += [f"{net}.onnx,{name}.vnnlib,5", f"{net}.onnx, {name}.vnnlib , 2.5,more"]
    return rows


def broken(row: str, draw: random.Random) -> str:
    """Returns a row with something in it that doesn't belong there, and no line break."""
    for _ in range(draw.randint(1, 3)):
        i = draw.randrange(len(row) + 1)
        match draw.randrange(4):
            case 0:
                row = row[:i] + draw.choice(_PARTS) + row[i:]
            case 1:
                row = row[:i] + row[i + draw.randint(1, 4) :]
            case 2:
                row = draw.choice(_PARTS)
            case _:
                fields = row.split(",")
                draw.shuffle(fields)
                row = ",".join(fields)
    return row


def outcome(raw: bytes, good: list[str], folder: Path) -> tuple[str, str]:
    """Reads one list.

    Args:
        raw: Its bytes.
        good: Its rows that were left alone; empty if the file is damaged as a whole.
        folder: Where the files are.

    Returns:
        What came of it in one word, and the reason; ``"traceback"``, ``"lost"``, ``"names"`` and ``"message"`` are
        faults.
    """
    (folder / "instances.csv").write_bytes(raw)
    try:
        tasks = read_rows(folder / "instances.csv")
    except UserError as error:
        fit = presentable(str(error), _LONGEST)
        return ("lost" if good else "refused" if fit else "message"), str(error)
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {error}"
    for task in tasks:
        if not task.refusal.isprintable() or len(task.refusal) > 1_000:
            return "message", task.refusal
    fitting = [task for task in tasks if fine(task)]
    named = {(task.name, task.onnx.resolve(), task.vnnlib.resolve(), task.timeout) for task in fitting}
    if len({name for name, *_ in named}) < len(named):
        return "names", str(named)
    left = iter(tasks)
    for row in good:
        onnx, vnnlib, limit = (field.strip() for field in row.split(",")[:3])
        expected = (folder / onnx, folder / vnnlib, float(limit))
        if not any((task.onnx, task.vnnlib, task.timeout) == expected and fine(task) for task in left):
            return "lost", row
    return ("read" if all(map(fine, tasks)) else "read, some rows refused"), ""


def fine(task: Task) -> bool:
    """Whether a row can be answered."""
    return not task.refusal


def fuzz(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[tuple[str, str, bytes]]]:
    """Reads lists; returns how many had which outcome, and what went wrong: outcome, reason, file."""
    rows = make(folder)
    outcomes: Counter[str] = Counter()
    faults = []
    for i in range(count):
        draw = random.Random(f"{seed} {i}")
        lines, good = [], []
        for row in draw.choices(rows, k=draw.randint(1, 8)):
            if draw.random() < 0.4:
                lines.append(broken(row, draw))
            else:
                lines.append(row)
                good.append(row)
        if draw.random() < 0.3:
            lines.insert(0, draw.choice(["onnx,vnnlib,timeout", "\ufeff# ours", ""]))
        raw = draw.choice(["\n", "\r\n", "\r", "\n\n"]).join(lines).encode()
        damage = draw.randrange(10)
        if damage == 0:
            raw, good = raw.decode().encode("utf-16"), []
        elif damage == 1:
            raw, good = gzip.compress(raw)[: draw.randrange(3, 40)], []
        elif damage == 2:
            raw = gzip.compress(raw)
        word, reason = outcome(raw, good, folder)
        outcomes[word] += 1
        if word in ("traceback", "lost", "names", "message"):
            faults.append((word, reason, raw))
    return outcomes, faults


if __name__ == "__main__":
    sys.exit(run_files(fuzz, shown=600))
