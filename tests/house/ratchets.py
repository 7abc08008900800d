"""Files that say what a rule doesn't hold for yet: they may only shrink, and are written, not edited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.house import ROOT, entrances, without_own_tests, words


@dataclass(frozen=True)
class Ratchet:
    """One such file.

    Args:
        path: The file; a line an exception: a name, and how often where that is more than once.
        remedy: What to do about an exception.
        exceptions: Those that the tree has now, how often each.
    """

    path: Path
    remedy: str
    exceptions: Callable[[], dict[str, int]]

    def written(self) -> dict[str, int]:
        """Returns what the file says."""
        lines = (line.split() for line in self.path.read_text().splitlines())
        return {name: int(number[0]) if number else 1 for name, *number in lines}

    def problems(self) -> list[str]:
        """Returns a sentence for each exception that the file doesn't have so often, and one if it is out of date."""
        now, then = self.exceptions(), self.written()
        more = [f"{name} ({number}): {self.remedy}" for name, number in now.items() if number > then.get(name, 0)]
        if more or now == then:
            return more
        return [
            f"{self.path.name} says {sum(then.values())}, there are {sum(now.values())}: python -m tests.house --write"
        ]

    def write(self, *, more: bool = False) -> str:
        """Writes the file if there are no more exceptions than it says, and returns what became of it.

        Args:
            more: Write it anyway.
        """
        now, then = self.exceptions(), self.written()
        if sum(now.values()) > sum(then.values()) and not more:
            return "\n  ".join([f"{self.path.name} is not written: {len(self.problems())} are new:", *self.problems()])
        lines = (name if number == 1 else f"{name} {number}" for name, number in now.items() if number)
        self.path.write_text("".join(f"{line}\n" for line in lines))
        return f"{self.path.name}: {sum(then.values())}, now {sum(now.values())}"


OWN_TESTS = Ratchet(
    ROOT / "tests" / "without_own_tests.txt",
    "write tests of its own",
    lambda: dict.fromkeys(without_own_tests(), 1),
)
EXAMPLES = Ratchet(
    ROOT / "tests" / "without_examples.txt",
    "give its docstring an example",
    lambda: dict.fromkeys(entrances.without_examples(), 1),
)
WORDS = Ratchet(
    ROOT / "tests" / "bare_names.txt",
    f"name variables by what they hold, unless they are boolean; not {', '.join(sorted(words.BARE))}",
    words.counts,
)
RATCHETS = (OWN_TESTS, EXAMPLES, WORDS)
