"""Validate a tree of leaderboard entries, offline: every problem is named by file and field."""

from __future__ import annotations

import argparse
import functools
import math
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunecert.bench.leaderboard.entry import (
    NAME,
    RESULT,
    Entry,
    entry_digest,
    entry_files,
    entry_name,
    load_entry,
    recount,
)
from prunecert.bench.leaderboard.entryschema import misshapen
from prunecert.bench.leaderboard.imagesets import EXACT, images_sha256, is_exact, known_labels
from prunecert.bench.planning.card import card_protocol
from prunecert.bench.planning.plan import CLASSES, image_key, stage_key
from prunecert.bench.schema.cell import parse_eps, show_eps
from prunecert.bench.schema.suite import Suite, available_suites, load_suite
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError, run_main
from prunecert.hashing import digest
from prunecert.models.data import Dataset
from prunecert.printable import printable, shortened
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Kind, Status

#: A verifier is killed at the latest so many seconds beyond its limit (`verifiers.process.worker.Worker`).
GRACE_S = 5.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXTS = (
    ("by",),
    ("cell", "network"),
    ("cell", "objective"),
    ("cell", "pruner"),
    ("cell", "name"),
    ("method", "title"),
)
_LONGEST = 120
_LONGEST_WORD = 4_000


@dataclass(frozen=True)
class Problem:
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


def check_entry(entry: Entry, stem: str | None = None, data: Dataset | None = None) -> list[Problem]:
    """Returns what is wrong with an entry, in the order of its fields.

    Args:
        entry: The entry.
        stem: The file's name without ``.json``; None if it is not in a file yet.
        data: The test images, where they are at hand: labels and pixels are then compared, too.
    """
    file = f"{stem if stem is not None else entry.get('name') or 'entry'}.json"
    found = [Problem(file, field, what) for field, what in misshapen(entry)]
    if found:
        # Values can't be judged where fields are missing.
        return found
    for judge in (_identity, _commands, _weights, _keys, _images, _protocol, _verdicts):
        found += [Problem(file, field, what) for field, what in judge(entry)]
    if not found:
        found += [Problem(file, field, what) for field, what in _result(entry)]
    if stem is not None and stem != entry["name"]:
        found.append(Problem(file, "name", f"{entry['name']!r} is not the file's name; rename the file"))
    if data is not None:
        found += [Problem(file, field, what) for field, what in _against_data(entry, data)]
    return found


def _identity(entry: Entry) -> Iterator[tuple[str, str]]:
    if not NAME.fullmatch(entry["name"]):
        yield "name", f"{entry['name']!r:.60} is refused; allowed are small letters, digits, '.', '_' and '-'"
    for path in _TEXTS:
        text: str = functools.reduce(lambda value, key: value[key], path, entry)  # type: ignore[assignment]
        if len(text) > _LONGEST or not text.isprintable():
            yield ".".join(path), f"{text!r:.60} is refused; allowed are {_LONGEST} printable characters on one line"
    if entry["method"]["url"] and not re.fullmatch(r"https?://\S+", entry["method"]["url"]):
        yield "method.url", "it must begin with https:// or http://"
    if entry["cell"]["norm"] != "linf":
        yield "cell.norm", f"{entry['cell']['norm']!r} is refused; allowed is 'linf'"
    try:
        if show_eps(parse_eps(entry["cell"]["eps"])) != entry["cell"]["eps"]:
            yield "cell.eps", f"write {show_eps(parse_eps(entry['cell']['eps']))!r}, so that equal radii look equal"
    except UserError as error:
        yield "cell.eps", str(error)
    wanted = entry_digest(entry)
    if entry["digest"] != wanted:
        yield "digest", f"it must be {wanted} for this content: the file was changed after it was made"


def _commands(entry: Entry) -> Iterator[tuple[str, str]]:
    """Judges the commands that the entry's page offers to be copied into a terminal."""
    if not is_own_command(entry["protocol"]["command"]):
        yield "protocol.command", "it is refused: it must be a command of ours, python -m bench.run …"
    if entry["training"] is None or not entry["training"]["command"]:
        return
    text = entry["training"]["command"]
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    # Anything that a shell would take for more than a word must be in quotes.
    if not is_own_command(words) or shlex.join(words) != text:
        yield "training.command", "it is refused: it must be a command of ours, python -m bench.train …"


def is_own_command(words: Sequence[str]) -> bool:
    """Whether a command, word by word, runs one of our verbs and nothing else."""
    verb = words[2:3] if list(words[:2]) == ["python", "-m"] else words[1:2] if words[:1] == ["prunecert"] else []
    known = bool(verb) and re.fullmatch(r"(bench\.)?[a-z][a-z_]{0,30}", verb[0]) is not None
    module = words[0] == "prunecert" or verb[0].startswith("bench.") if known else False
    return module and all(len(word) <= _LONGEST_WORD and word.isprintable() for word in words)


def _weights(entry: Entry) -> Iterator[tuple[str, str]]:
    weights = entry["weights"]
    layers = weights["layers"]
    if not layers:
        yield "weights.layers", "there is no layer"
    for number, layer in enumerate(layers):
        if layer["weights"] != math.prod(layer["shape"]) or not 0 <= layer["zeros"] <= layer["weights"]:
            yield (
                f"weights.layers[{number}]",
                f"{layer['zeros']} zeros of {layer['weights']} weights don't fit the shape",
            )
    total, zeros = sum(layer["weights"] for layer in layers), sum(layer["zeros"] for layer in layers)
    for key, wanted in (("total", total), ("nonzero", total - zeros)):
        if weights[key] != wanted:
            yield f"weights.{key}", f"{weights[key]} is not the layers' {wanted}"
    if weights["dense"] < weights["total"] or weights["nonzero"] < 1:
        yield "weights.dense", "it must be at least the number of weights, and one weight must be left"
    elif not (
        math.isclose(weights["sparsity"], 1 - weights["nonzero"] / weights["dense"], abs_tol=1e-9)
        and math.isclose(weights["compression"], weights["dense"] / weights["nonzero"], rel_tol=1e-9)
    ):
        yield (
            "weights.compression",
            f"sparsity and compression must follow from {weights['nonzero']} of {weights['dense']}",
        )


def _keys(entry: Entry) -> Iterator[tuple[str, str]]:
    for field, value in (
        ("files.onnx_sha256", entry["files"]["onnx_sha256"]),
        ("files.masked_sha256", entry["files"].get("masked_sha256")),
        ("files.checkpoint_sha256", entry["files"]["checkpoint_sha256"]),
        ("data.fingerprint", entry["data"]["fingerprint"]),
        ("data.images_sha256", entry["data"]["images_sha256"]),
        ("protocol.suite_digest", entry["protocol"]["suite_digest"]),
    ):
        if value is not None and not _SHA256.fullmatch(value):
            yield field, f"{value!r:.70} is no SHA-256"
    protocol = entry["protocol"]
    wanted = image_key(entry["files"]["onnx_sha256"], entry["data"]["fingerprint"], entry["data"]["split"])
    if protocol["image_key"] != wanted:
        yield "protocol.image_key", f"it must be {wanted} for this network and these images"
    try:
        eps = parse_eps(entry["cell"]["eps"])
    except UserError:
        return
    for number, stage in enumerate(protocol["stages"]):
        settings = digest(stage["settings"])[:12]
        if stage["settings_hash"] != settings:
            yield f"protocol.stages[{number}].settings_hash", f"it must be {settings} for these settings"
        key = stage_key(wanted, eps, stage["verifier"], stage["version"], settings, stage["timeout"])
        if stage["key"] != key:
            yield f"protocol.stages[{number}].key", f"it must be {key} for this network, radius, verifier and limit"
    if protocol["image_key"] == wanted and entry["name"] != entry_name(entry):
        yield "name", f"it must be {entry_name(entry)!r} for this network, images and verifiers"


def _images(entry: Entry) -> Iterator[tuple[str, str]]:
    data, images = entry["data"], entry["images"]
    count = data["images"]
    known = EXACT.get(count)
    if data["official"] and known not in (None, data["images_sha256"]):
        yield "data.official", f"CIFAR-10's first {count} test images have the SHA-256 {known}, so these are others"
    if known == data["images_sha256"] and list(images["label"]) != known_labels(count):
        yield "images.label", "these are not the labels that belong to the pixels"
    if data["sample"]:
        yield "data.sample", "these are the built-in sample images; only CIFAR-10's test images are taken"
    if data["split"] != "test" or data["indices"] is not None:
        yield "data.split", "only the first images of the test split are taken"
    if any(len(column) != count for column in images.values()):
        lengths = ", ".join(f"{key} {len(column)}" for key, column in images.items())
        yield "images", f"{count} images are announced in data.images, but there are {lengths}: a truncated run"
        return
    if images["index"] != list(range(count)):
        yield "images.index", f"it must count from 0 to {count - 1}: images are missing, twice or out of order"
    for key in ("label", "predicted"):
        if not all(0 <= value < CLASSES for value in images[key]):
            yield f"images.{key}", f"a class must be within 0 and {CLASSES - 1}"
    for index, label, predicted, correct in zip(*(images[key] for key in images), strict=True):
        if correct and label != predicted:
            yield (
                "images.correct",
                f"image {index} counts as correct, but {predicted} was predicted and {label} is right",
            )


@functools.cache
def _shipped(name: str, profile: str) -> Suite | None:
    """Returns a shipped suite, or None where there is none of that name and profile."""
    if name not in available_suites():
        return None
    try:
        return load_suite(name, profile)
    except UserError:
        return None


def _protocol(entry: Entry) -> Iterator[tuple[str, str]]:
    protocol, data = entry["protocol"], entry["data"]
    asked = protocol["asked"]
    if data["images"] != asked["images"]:
        yield "data.images", f"{data['images']} images; the suite asks for {asked['images']}: a truncated run"
    if data["split"] != asked["split"]:
        yield "data.split", f"{data['split']!r}; the suite asks for {asked['split']!r}"
    names = [stage["verifier"] for stage in protocol["stages"]]
    if not names or len(set(names)) < len(names):
        yield "protocol.stages", "there must be at least one verifier, and none twice"
    # Certificates that hold with a probability are no verdicts, whoever submits them.
    kinds = [str(kind) for kind in Kind if kind is not Kind.PROBABILISTIC]
    for number, stage in enumerate(protocol["stages"]):
        name, path = stage["verifier"], f"protocol.stages[{number}]"
        limit = asked["timeouts"].get(name)
        if limit is None:
            yield f"{path}.verifier", f"{name!r:.60} is refused: the suite sets no time limit for it, so it isn't asked"
        elif stage["timeout"] != limit:
            yield f"{path}.timeout", f"{stage['timeout']} s; the suite's limit is {limit} s"
        if stage.get("memory_mb") != asked.get("memory_mb"):
            yield f"{path}.memory_mb", f"{stage.get('memory_mb')}; the suite's limit is {asked.get('memory_mb')}"
        if stage["everyone"] != (name in asked["cross_check"]):
            yield f"{path}.everyone", "it must be true for verifiers of the suite's cross_check, false for all others"
        if stage["kind"] not in kinds:
            yield f"{path}.kind", f"{stage['kind']!r:.60} is refused; allowed are {', '.join(kinds)}"
        elif name in VERIFIERS and VERIFIERS.get(name).kind != stage["kind"]:
            # Were it believed, an attack could prove, and a bound break.
            yield f"{path}.kind", f"{stage['kind']!r} is refused; {name} is {str(VERIFIERS.get(name).kind)!r}"
        for key, value in asked.get("settings", {}).get(name, {}).items():
            if key not in stage["settings"] or digest(stage["settings"][key]) != digest(value):
                yield f"{path}.settings.{key}", f"the suite asks for {shortened(repr(value), 60)}"
    suite = _shipped(protocol["suite"], protocol["profile"])
    if suite is not None and suite.digest() == protocol["suite_digest"]:
        yield from _of_suite(entry, suite)


def _of_suite(entry: Entry, suite: Suite) -> Iterator[tuple[str, str]]:
    """Judges an entry by a suite that ships, in the very edition that the entry names."""
    cells = {cell.name: (cell, p) for cell, p in suite.cells}
    asked, claimed = entry["protocol"]["asked"], entry["cell"]
    for number, stage in enumerate(entry["protocol"]["stages"]):
        if stage["verifier"] not in VERIFIERS:
            yield f"protocol.stages[{number}].verifier", f"{stage['verifier']!r:.60} is none that the suite could name"
    if claimed["name"] in cells:
        cell, rule = cells[claimed["name"]]
        for key, value in cell.to_json().items():
            if claimed[key] != value:
                yield f"cell.{key}", f"{claimed[key]!r:.60}; the suite's cell {cell.name} has {value!r}"
    else:
        try:
            rule = card_protocol(suite, claimed["network"], parse_eps(claimed["eps"]))
        except UserError:
            return  # The radius is no number; that has been said.
    if digest(asked) != digest(rule.to_json()):
        different = [key for key, value in rule.to_json().items() if digest(asked.get(key)) != digest(value)]
        yield (
            f"protocol.asked.{different[0] if different else ''}",
            f"this is not what suite {suite.name!r} asks for",
        )


def _verdicts(entry: Entry) -> Iterator[tuple[str, str]]:
    stages = {stage["verifier"]: stage for stage in entry["protocol"]["stages"]}
    correct = {i for i, ok in zip(entry["images"]["index"], entry["images"]["correct"], strict=False) if ok}
    statuses = {str(status) for status in Status}
    if set(entry["verdicts"]) != set(stages):
        yield "verdicts", f"there must be one set of answers for each of {', '.join(stages)}"
    for name in entry["verdicts"].keys() & stages.keys():
        columns, stage, path = entry["verdicts"][name], stages[name], f"verdicts.{name}"
        if len({len(column) for column in columns.values()}) > 1:
            yield path, "its columns differ in length"
            continue
        if len(set(columns["image"])) < len(columns["image"]):
            yield f"{path}.image", "an image stands there twice"
        foreign = set(columns["image"]) - correct
        if foreign:
            yield f"{path}.image", f"image {min(foreign)} is not one that is classified correctly"
        for image, status, seconds in zip(columns["image"], columns["status"], columns["seconds"], strict=True):
            if status not in statuses:
                yield (
                    f"{path}.status",
                    f"image {image}: {status!r:.40} is refused; allowed are {', '.join(sorted(statuses))}",
                )
            elif (stage["kind"], status) in ((Kind.ATTACK, "unsat"), (Kind.INCOMPLETE, "sat")):
                yield (
                    f"{path}.status",
                    f"image {image}: {status!r} cannot come from a verifier of kind {stage['kind']!r}",
                )
            if not 0 <= seconds <= stage["timeout"] + GRACE_S:
                yield (
                    f"{path}.seconds",
                    f"image {image}: {seconds:g} s are not within the limit of {stage['timeout']:g} s",
                )


def _result(entry: Entry) -> Iterator[tuple[str, str]]:
    answers: dict[int, dict[str, str]] = {}
    for name, columns in entry["verdicts"].items():
        for image, status in zip(columns["image"], columns["status"], strict=True):
            answers.setdefault(image, {}).setdefault(status, name)
    for image, by in sorted(answers.items()):
        if "unsat" in by and "sat" in by:
            yield (
                f"verdicts.{by['unsat']}",
                f"image {image}: {by['unsat']} proves it, {by['sat']} breaks it: a contradiction",
            )
    wanted = recount(entry)
    if not wanted["finished"]:
        yield "verdicts", "answers are missing for correctly classified images: a truncated run"
    for key in (*RESULT, "finished"):
        yield from _differences(entry["result"][key], wanted[key], f"result.{key}")


def _differences(found: Any, wanted: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys((*wanted, *found)):
            yield from _differences(found.get(key), wanted.get(key), f"{path}.{key}")
    elif isinstance(wanted, float) and isinstance(found, int | float):
        if not math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-12):
            yield path, f"{found!r} is written, but {wanted!r} follows from images and verdicts"
    elif found != wanted or type(found) is not type(wanted):
        yield path, f"{found!r:.60} is written, but {wanted!r:.60} follows from images and verdicts"


def _against_data(entry: Entry, data: Dataset) -> Iterator[tuple[str, str]]:
    count = min(entry["data"]["images"], len(data))
    for index, label in zip(entry["images"]["index"], entry["images"]["label"], strict=False):
        if 0 <= index < len(data) and int(data.labels[index]) != label:
            yield "images.label", f"image {index}: the data set's label is {int(data.labels[index])}, not {label}"
    if entry["data"]["images_sha256"] != images_sha256(data, count):
        yield "data.images_sha256", "the pixels are not those of the copy at hand"


def contradictions(entries: Mapping[str, Entry]) -> list[Problem]:
    """Returns the questions on which two entries disagree: same network, image and radius, `unsat` and `sat`.

    Both sides are named, each as a problem of its file: which of them is wrong can't be told without running them
    again, least of all by the order of their names.
    """
    answers: dict[tuple[Any, ...], dict[str, dict[str, str]]] = {}
    for stem, entry in entries.items():
        files = entry["files"]
        # The same network is the same one whether it was compacted or not.
        network = files.get("masked_sha256") or files["onnx_sha256"]
        key = (network, entry["data"]["images_sha256"], entry["cell"]["eps"])
        for verifier, columns in entry["verdicts"].items():
            for image, status in zip(columns["image"], columns["status"], strict=True):
                if status in ("unsat", "sat"):
                    answers.setdefault((*key, image), {}).setdefault(status, {}).setdefault(stem, verifier)
    found = []
    for (*_, image), sides in answers.items():
        if len(sides) < 2:
            continue
        for status, other in (("unsat", "sat"), ("sat", "unsat")):
            # What an entry says against itself has been said before.
            rivals = {stem: verifier for stem, verifier in sides[other].items() if stem not in sides[status]}
            for stem, verifier in sides[status].items():
                if stem not in sides[other] and rivals:
                    rival, its = next(iter(rivals.items()))
                    found.append(
                        Problem(
                            f"{stem}.json",
                            f"verdicts.{verifier}.status",
                            f"image {image}: {status}, but {its} in {shortened(rival)}.json says otherwise",
                        )
                    )
    return found


def remarks(entry: Entry) -> list[str]:
    """Returns what a reader should know of a valid entry."""
    found = []
    data, protocol = entry["data"], entry["protocol"]
    # That a copy is the official one is a claim, the hash can be looked up.
    if not is_exact(data["images"], data["images_sha256"]):
        found.append("its images are not known to be CIFAR-10's to the pixel")
    suite = _shipped(protocol["suite"], protocol["profile"])
    if suite is None:
        found.append(f"suite {protocol['suite']!r} does not ship with this version; its rules are taken as stated")
    elif suite.digest() != protocol["suite_digest"]:
        found.append(f"it was made with another edition of suite {protocol['suite']!r}")
    return found


def check_tree(root: Path, data: Dataset | None = None) -> tuple[dict[str, Entry], list[Problem]]:
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
    problems: list[Problem] = []
    for path in entry_files(root):
        try:
            entry = load_entry(path)
        except UserError as error:
            field, _, what = str(error).removeprefix(f"{shortened(path)}: ").partition(": ")
            problems.append(Problem(path.name, field if what else "file", what or field))
            continue
        found = check_entry(entry, path.stem, data)
        problems += found
        if not found:
            good[path.stem] = entry
    disputed = contradictions(good)
    for problem in disputed:
        good.pop(problem.file.removesuffix(".json"), None)
    return good, problems + disputed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring.

    Returns:
        0 if all entries are valid, 1 if one has a problem.

    Raises:
        UserError: There is no such folder, or no entry in it.
    """
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__)
    parser.add_argument("results", type=Path, nargs="?", default=Path("results"), help="the results folder")
    parser.add_argument("--data-root", type=Path, help="compare labels and pixels with this copy of CIFAR-10, too")
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    data = None
    if options.data_root is not None:
        from prunecert.models.data import load

        data = load("test", options.data_root, download=False, allow_sample=False)
    files = entry_files(options.results)
    if not files:
        raise UserError(f"{shortened(options.results)} holds no leaderboard entry; bench.run --submit makes them.")
    good, problems = check_tree(options.results, data)
    for problem in problems:
        print(problem)
    for stem, entry in good.items():
        for remark in remarks(entry):
            print(f"note: {shortened(stem)}.json: {printable(remark)}")
    print(f"{len(files)} entries: {len(good)} valid, {len(files) - len(good)} with problems ({len(problems)} in all)")
    return EXIT_REGRESSION if problems else EXIT_OK


if __name__ == "__main__":
    run_main(main)
