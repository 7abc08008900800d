"""Whether a tree of leaderboard entries is valid: every problem is named by file and field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunecert.bench.leaderboard.answers import judge_protocol, judge_result, judge_verdicts
from prunecert.bench.leaderboard.content import (
    judge_against_data,
    judge_commands,
    judge_identity,
    judge_images,
    judge_keys,
    judge_weights,
)
from prunecert.bench.leaderboard.entry import Entry, entry_files, load_entry
from prunecert.bench.leaderboard.entryschema import misshapen
from prunecert.bench.leaderboard.imagesets import CIFAR10, data_name, is_exact
from prunecert.bench.leaderboard.proofs import judge_proofs
from prunecert.bench.leaderboard.suites import shipped_suite
from prunecert.bench.results.outcome import disputes
from prunecert.errors import UserError
from prunecert.models.data import Dataset
from prunecert.printable import printable, shortened


@dataclass(frozen=True)
class EntryProblem:
    """One thing that is wrong.

    Args:
        file: The file's name.
        field: The field, as ``protocol.stages[0].key``.
        what: What is wrong, in a few words.
    """

    file: str
    field: str
    what: str

    def __str__(self) -> str:
        """Returns one printable line; names of foreign files and fields command neither terminal nor CI service."""
        line = f"{shortened(self.file)}: {shortened(self.field)}: {printable(self.what)}"
        # At the beginning of a line `::` would begin a command of GitHub's.
        return f"./{line}" if line.lstrip().startswith("::") else line


def check_entry(entry: Entry, stem: str | None = None, data: Dataset | None = None) -> list[EntryProblem]:
    """Returns what is wrong with an entry, in the order of its fields.

    Args:
        entry: The entry.
        stem: The file's name without ``.json``; None if it is not in a file yet.
        data: The test images, where they are at hand: labels and pixels are then compared, too.
    """
    file = f"{stem if stem is not None else entry.get('name') or 'entry'}.json"
    problems = [EntryProblem(file, field, what) for field, what in misshapen(entry)]
    if problems:
        # Values can't be judged where fields are missing.
        return problems
    for judge in (
        judge_identity,
        judge_commands,
        judge_weights,
        judge_keys,
        judge_images,
        judge_protocol,
        judge_verdicts,
        judge_proofs,
    ):
        problems += [EntryProblem(file, field, what) for field, what in judge(entry)]
    if not problems:
        problems += [EntryProblem(file, field, what) for field, what in judge_result(entry)]
    if stem is not None and stem != entry["name"]:
        problems.append(EntryProblem(file, "name", f"{entry['name']!r} is not the file's name; rename the file"))
    if data is not None:
        problems += [EntryProblem(file, field, what) for field, what in judge_against_data(entry, data)]
    return problems


def contradictions(entries: Mapping[str, Entry]) -> list[EntryProblem]:
    """Returns the questions on which two entries disagree: same network, image and radius, `unsat` and `sat`.

    Both sides are named, each as a problem of its file: which of them is wrong can't be told without running them
    again, least of all by the order of their names.
    """
    claims = (
        # The same network is the same one whether it was compacted or not.
        (
            (
                entry["files"].get("masked_sha256") or entry["files"]["onnx_sha256"],
                entry["data"]["images_sha256"],
                entry["cell"]["eps"],
                image,
            ),
            status,
            (stem, verifier),
        )
        for stem, entry in entries.items()
        for verifier, columns in entry["verdicts"].items()
        for image, status in zip(columns["image"], columns["status"], strict=True)
    )
    problems = []
    for (*_, image), proving, breaking in disputes(claims):
        for status, sides, others in (("unsat", proving, breaking), ("sat", breaking, proving)):
            # What an entry says against itself has been said before.
            own, rivals = _by_entry(sides, others), _by_entry(others, sides)
            if not rivals:
                continue
            rival, its = next(iter(rivals.items()))
            problems += [
                EntryProblem(
                    f"{stem}.json",
                    f"verdicts.{verifier}.status",
                    f"image {image}: {status}, but {its} in {shortened(rival)}.json says otherwise",
                )
                for stem, verifier in own.items()
            ]
    return problems


def _by_entry(sides: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Returns the first verifier of each entry of one side that doesn't stand on the other side, too."""
    both = {stem for stem, _ in others}
    verifiers: dict[str, str] = {}
    for stem, verifier in sides:
        if stem not in both:
            verifiers.setdefault(stem, verifier)
    return verifiers


def remarks(entry: Entry) -> list[str]:
    """Returns what a reader should know of a valid entry."""
    sentences = []
    data, protocol = entry["data"], entry["protocol"]
    # That a copy is the official one is a claim, the hash can be looked up.
    if not is_exact(data["images"], data["images_sha256"]):
        name = data_name(data["source"])
        sentences.append(
            "its images are not known to be CIFAR-10's to the pixel"
            if name == CIFAR10
            else f"its images are those of {name}, whose hash isn't known here"
        )
    suite = shipped_suite(protocol["suite"], protocol["profile"])
    if suite is None:
        sentences.append(f"suite {protocol['suite']!r} does not ship with this version; its rules are taken as stated")
    elif suite.digest() != protocol["suite_digest"]:
        sentences.append(f"it was made with another edition of suite {protocol['suite']!r}")
    return sentences


def check_tree(root: Path, data: Dataset | None = None) -> tuple[dict[str, Entry], list[EntryProblem]]:
    """Checks every entry of a results tree.

    Args:
        root: See `bench.leaderboard.entry.entry_files`.
        data: See `check_entry`.

    Returns:
        The entries without problems, by name, and all problems.

    Raises:
        UserError: There is no such folder.
    """
    good: dict[str, Entry] = {}
    problems: list[EntryProblem] = []
    for path in entry_files(root):
        try:
            entry = load_entry(path)
        except UserError as error:
            field, _, what = str(error).removeprefix(f"{shortened(path)}: ").partition(": ")
            problems.append(EntryProblem(path.name, field if what else "file", what or field))
            continue
        faults = check_entry(entry, path.stem, data)
        problems += faults
        if not faults:
            good[path.stem] = entry
    disputed = contradictions(good)
    for problem in disputed:
        good.pop(problem.file.removesuffix(".json"), None)
    return good, problems + disputed
