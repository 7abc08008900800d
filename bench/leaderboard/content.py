"""Judges an entry by itself: its words, commands, weights, hashes and images, each field by what others say."""

from __future__ import annotations

import functools
import math
import re
import shlex
from collections.abc import Iterator, Sequence

from prunecert.bench.leaderboard.entry import NAME, Entry, entry_digest, entry_name
from prunecert.bench.leaderboard.imagesets import CIFAR10, EXACT, LEAST_IMAGES, data_name, images_sha256, known_labels
from prunecert.bench.planning.plan import image_key, stage_key
from prunecert.bench.schema.cell import parse_eps, show_eps
from prunecert.errors import UserError
from prunecert.hashing import digest
from prunecert.models.data import CLASSES, Dataset

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXTS = (
    ("by",),
    ("cell", "network"),
    ("cell", "objective"),
    ("cell", "pruner"),
    ("cell", "name"),
    ("method", "title"),
    ("data", "source"),
)
#: Of a data set other than CIFAR-10, whose number of classes nothing here says.
_MOST_CLASSES = 100_000
_LONGEST = 120
_LONGEST_WORD = 4_000


def judge_identity(entry: Entry) -> Iterator[tuple[str, str]]:
    """Judges who sends what: names, titles, the radius, and the hash of all of it."""
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
    own_digest = entry_digest(entry)
    if entry["digest"] != own_digest:
        yield "digest", f"it must be {own_digest} for this content: the file was changed after it was made"


def judge_commands(entry: Entry) -> Iterator[tuple[str, str]]:
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
    is_verb = bool(verb) and re.fullmatch(r"(bench\.)?[a-z][a-z_]{0,30}", verb[0]) is not None
    module = words[0] == "prunecert" or verb[0].startswith("bench.") if is_verb else False
    return module and all(len(word) <= _LONGEST_WORD and word.isprintable() for word in words)


def judge_weights(entry: Entry) -> Iterator[tuple[str, str]]:
    """Judges the numbers of weights and zeros by the layers' shapes."""
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
    for key, count in (("total", total), ("nonzero", total - zeros)):
        if weights[key] != count:
            yield f"weights.{key}", f"{weights[key]} is not the layers' {count}"
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


def judge_keys(entry: Entry) -> Iterator[tuple[str, str]]:
    """Judges hashes, and the identifiers that must follow from them."""
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
    own_key = image_key(entry["files"]["onnx_sha256"], entry["data"]["fingerprint"], entry["data"]["split"])
    if protocol["image_key"] != own_key:
        yield "protocol.image_key", f"it must be {own_key} for this network and these images"
    try:
        eps = parse_eps(entry["cell"]["eps"])
    except UserError:
        return
    for number, stage in enumerate(protocol["stages"]):
        settings = digest(stage["settings"])[:12]
        if stage["settings_hash"] != settings:
            yield f"protocol.stages[{number}].settings_hash", f"it must be {settings} for these settings"
        key = stage_key(own_key, eps, stage["verifier"], stage["version"], settings, stage["timeout"])
        if stage["key"] != key:
            yield f"protocol.stages[{number}].key", f"it must be {key} for this network, radius, verifier and limit"
    if protocol["image_key"] == own_key and entry["name"] != entry_name(entry):
        yield "name", f"it must be {entry_name(entry)!r} for this network, images and verifiers"


def judge_images(entry: Entry) -> Iterator[tuple[str, str]]:
    """Judges which images are meant, and what the network makes of them."""
    data, images = entry["data"], entry["images"]
    count = data["images"]
    cifar10 = data_name(data["source"]) == CIFAR10
    pixels = EXACT.get(count)
    if count < LEAST_IMAGES:
        yield "data.images", f"{count} images are too few for the board, which takes {LEAST_IMAGES} and more"
    if cifar10 and data["official"] and pixels not in (None, data["images_sha256"]):
        yield "data.official", f"CIFAR-10's first {count} test images have the SHA-256 {pixels}, so these are others"
    if pixels == data["images_sha256"] and list(images["label"]) != known_labels(count):
        yield "images.label", "these are not the labels that belong to the pixels"
    if data["sample"]:
        yield "data.sample", "these are the built-in sample images; only a data set's test images are taken"
    if data["split"] != "test" or data["indices"] is not None:
        yield "data.split", "only the first images of the test split are taken"
    if any(len(column) != count for column in images.values()):
        lengths = ", ".join(f"{key} {len(column)}" for key, column in images.items())
        yield "images", f"{count} images are announced in data.images, but there are {lengths}: a truncated run"
        return
    if images["index"] != list(range(count)):
        yield "images.index", f"it must count from 0 to {count - 1}: images are missing, twice or out of order"
    classes = len(CLASSES) if cifar10 else _MOST_CLASSES
    for key in ("label", "predicted"):
        if not all(0 <= value < classes for value in images[key]):
            yield f"images.{key}", f"a class must be within 0 and {classes - 1}"
    for index, label, predicted, correct in zip(*(images[key] for key in images), strict=True):
        if correct and label != predicted:
            yield (
                "images.correct",
                f"image {index} counts as correct, but {predicted} was predicted and {label} is right",
            )


def judge_against_data(entry: Entry, data: Dataset) -> Iterator[tuple[str, str]]:
    """Judges labels and pixels by a copy of CIFAR-10, where the entry is on it."""
    if data_name(entry["data"]["source"]) != CIFAR10:
        return
    count = min(entry["data"]["images"], len(data))
    for index, label in zip(entry["images"]["index"], entry["images"]["label"], strict=False):
        if 0 <= index < len(data) and int(data.labels[index]) != label:
            yield "images.label", f"image {index}: the data set's label is {int(data.labels[index])}, not {label}"
    if entry["data"]["images_sha256"] != images_sha256(data, count):
        yield "data.images_sha256", "the pixels are not those of the copy at hand"
