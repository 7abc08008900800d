"""The shape of a leaderboard entry: which fields there are, and of what type; values are judged by `bench.check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_COUNT = (int,)
_NUMBER = (int, float)
_TEXT = (str,)
_SHARE = {"k": _COUNT, "n": _COUNT, "value": _NUMBER, "low": _NUMBER, "high": _NUMBER}
#: Names as they come, each with a text.
_TEXTS = {"*": (str,)}
_MAYBE_NUMBER = (int, float, type(None))

#: Field to type: a tuple of types, a mapping of fields (``*`` for any), or a list with the one type of its items.
SHAPE: Mapping[str, Any] = {
    "schema_version": _COUNT,
    "kind": _TEXT,
    "name": _TEXT,
    "digest": _TEXT,
    "by": _TEXT,
    "method": {"title": _TEXT, "url": _TEXT, "notes": _TEXT},
    "cell": {
        "network": _TEXT,
        "objective": _TEXT,
        "eps": _TEXT,
        "pruner": _TEXT,
        "compression": _NUMBER,
        "seed": _COUNT,
        "name": _TEXT,
        "norm": _TEXT,
    },
    "weights": {
        "total": _COUNT,
        "nonzero": _COUNT,
        "dense": _COUNT,
        "sparsity": _NUMBER,
        "compression": _NUMBER,
        "layers": [{"name": _TEXT, "kind": _TEXT, "shape": [_COUNT], "weights": _COUNT, "zeros": _COUNT}],
    },
    "files": {"onnx_sha256": _TEXT, "onnx_bytes": _COUNT, "checkpoint_sha256": (str, type(None))},
    "training": (dict, type(None)),
    "data": {
        "split": _TEXT,
        "fingerprint": _TEXT,
        "official": (bool,),
        "sample": (bool,),
        "source": _TEXT,
        "images": _COUNT,
        "indices": (list, type(None)),
        "images_sha256": _TEXT,
    },
    "protocol": {
        "suite": _TEXT,
        "profile": _TEXT,
        "suite_digest": _TEXT,
        "command": [_TEXT],
        "started": _TEXT,
        "versions": _TEXTS,
        "machine": {"cpu": _TEXT, "cores": _COUNT, "memory_gib": _NUMBER, "system": _TEXT, "architecture": _TEXT},
        "device": _TEXT,
        "workers": _COUNT,
        "threads": _COUNT,
        "float32": _TEXT,
        "asked": {
            "split": _TEXT,
            "images": _COUNT,
            "cascade": [_TEXT],
            "cross_check": [_TEXT],
            "timeouts": {"*": _NUMBER},
        },
        "image_key": _TEXT,
        "stages": [
            {
                "verifier": _TEXT,
                "kind": _TEXT,
                "version": _TEXT,
                "source": _TEXT,
                "settings": (dict,),
                "settings_hash": _TEXT,
                "timeout": _NUMBER,
                "device": _TEXT,
                "everyone": (bool,),
                "key": _TEXT,
            }
        ],
        "unsupported": _TEXTS,
        "skipped": _TEXTS,
        "note": _TEXT,
    },
    "result": {
        "clean": _SHARE,
        "verified": _SHARE,
        "attacked": _SHARE,
        "undecided": (dict,),
        "decided_by": (dict,),
        "time": {"median_s": _MAYBE_NUMBER, "p90_s": _MAYBE_NUMBER, "total_s": _NUMBER, "images": _COUNT},
        "finished": (bool,),
    },
    "images": {"index": [_COUNT], "label": [_COUNT], "predicted": [_COUNT], "correct": [(bool,)]},
    "verdicts": (dict,),
}
TRAINING: Mapping[str, Any] = {
    "command": _TEXT,
    "recipe": (dict,),
    "device": _TEXT,
    "train_seconds": _NUMBER,
    "versions": _TEXTS,
    "data_fingerprint": _TEXT,
    "mask_sha256": _TEXT,
}
VERDICTS: Mapping[str, Any] = {
    "image": [_COUNT],
    "status": [_TEXT],
    "seconds": [_NUMBER],
    "unstable": [(int, type(None))],
    "domains": [(int, type(None))],
    "decided_in": [(str, type(None))],
}
_NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def misshapen(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (field, what is wrong) for everything that is missing or of another type."""
    yield from _compare(entry, SHAPE, "")
    if isinstance(entry.get("training"), dict):
        yield from _compare(entry["training"], TRAINING, "training")
    verdicts = entry.get("verdicts")
    for verifier, columns in verdicts.items() if isinstance(verdicts, dict) else ():
        yield from _compare(columns, VERDICTS, f"verdicts.{verifier}")


def _compare(value: Any, shape: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            yield path, f"{value!r:.60} is refused; it must be an object"
            return
        for key, inner in shape.items():
            where = f"{path}.{key}" if path else key
            if key == "*":
                for name in value:
                    yield from _compare(value[name], inner, f"{path}.{name}")
            elif key in value:
                yield from _compare(value[key], inner, where)
            else:
                yield where, "the field is missing"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield path, f"{value!r:.60} is refused; it must be a list"
            return
        for number, item in enumerate(value):
            if not _plain(item, shape[0]):
                yield from _compare(item, shape[0], f"{path}[{number}]")
    elif not _plain(value, shape):
        names = " or ".join(dict.fromkeys("null" if kind is type(None) else _NAMES[kind] for kind in shape))
        yield path, f"{value!r:.60} is refused; it must be {names}"


def _plain(value: Any, shape: Any) -> bool:
    """Whether a value is of one of the types; true and false are no numbers."""
    return isinstance(shape, tuple) and isinstance(value, shape) and (type(value) is not bool or bool in shape)
