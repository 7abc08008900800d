"""YAML that remembers its lines, and a reader of sections that refuses what it does not know.

Files come from anybody: their size, depth, number of values and digits are limited before anything is made of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from prunecert.errors import UserError, did_you_mean
from prunecert.files import read_regular
from prunecert.printable import shortened

KeyPath = tuple[str | int, ...]
T = TypeVar("T")

_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
    bool: "true or false",
    object: "a plain value",
}
#: Ten times the largest suite; PyYAML reads some 10,000 values a second.
MOST_BYTES = 256 << 10
MOST_VALUES = 10_000
DEEPEST = 30
LARGEST_WHOLE = 2**63 - 1
_LONGEST_NUMBER = 40
_LONGEST_PATH = 100
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_TAG + name for name in ("null", "bool", "int", "float", "str"))
_NUMBER_TAGS = frozenset({_TAG + "int", _TAG + "float"})
_BOOLEANS = frozenset(yaml.SafeLoader.bool_values)


class _Limit(yaml.MarkedYAMLError):
    """Raised at the node that is one too many or too deep."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with YAML 1.2's numbers (``1e-4``), without dates and base 60, and with limits.

    Its scanner is lazy, so that a limit holds before what lies beyond is read.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        self._nodes += 1
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self._depth > DEEPEST:
            raise _Limit(None, None, f"it is nested more than {DEEPEST} levels deep", mark)
        if self._nodes > MOST_VALUES:
            raise _Limit(None, None, f"it holds more than {MOST_VALUES:,} values", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


# A copy: what is added to an inherited table would be added to PyYAML's. A ratio (``2:4``) is no number of base 60.
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile(f"(?!.*:)(?:{pattern.pattern})", re.VERBOSE) if tag in _NUMBER_TAGS else pattern)
        for tag, pattern in resolvers
        if not tag.endswith(":timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _TAG + "float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z"), list("-+.0123456789")
)


def _compose(text: str) -> yaml.Node | None:
    """Returns the document's nodes.

    Raises:
        YAMLError: It is no YAML, or beyond a limit.
    """
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
    finally:
        loader.dispose()
    return node


def _value(node: yaml.ScalarNode) -> Any:
    """Returns what a scalar stands for.

    Raises:
        ValueError: It is of a type that is not taken, or no value of its type, or a number beyond the limits.
    """
    if node.tag not in _PLAIN_TAGS:
        raise ValueError(f"the type {shortened(node.tag.removeprefix(_TAG), 40)!r} is refused; write a plain value")
    text = node.value
    kind = node.tag.removeprefix(_TAG)
    if kind == "str":
        return text
    if kind == "bool" and text.lower() not in _BOOLEANS:
        raise ValueError(f"{shortened(text, 40)!r} is refused; it must be true or false")
    if kind in ("int", "float") and len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} characters is refused; write it with at most {_LONGEST_NUMBER}")
    if kind == "int" and re.fullmatch(r"[-+]?0[0-9_]+", text):
        # 8 in YAML 1.1, which PyYAML reads, and 10 in YAML 1.2.
        raise ValueError(
            f"{shortened(text, 40)!r} is refused, since readers differ about leading zeros; leave them out"
        )
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError, LookupError, ArithmeticError) as error:
        raise ValueError(f"{shortened(text, 40)!r} is no {kind}") from error
    if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
        raise ValueError(f"the whole number {shortened(text, 50)} is refused; it must fit into 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{shortened(text, 40)} is refused; it must be a finite number")
    return value


def load_scalar(text: str) -> Any:
    """Reads one value as suites write them: true or false, a number (``1e-4`` is one), text, or a list of such.

    Args:
        text: What follows the ``=`` of an option, say.

    Returns:
        None, a bool, an int of at most 64 bits, a finite float, a text, or a list of these.

    Raises:
        UserError: It is no YAML, a mapping, or beyond the limits on size, depth and digits.
    """
    if len(text) > MOST_BYTES:
        raise UserError(f"A value of {len(text):,} characters is refused; at most {MOST_BYTES:,} are read.")
    try:
        node = _compose(text)
        return None if node is None else _plain(node, 0)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{shortened(text, 60)!r} cannot be read: {_reason(error)}.") from error


def _plain(node: yaml.Node, depth: int) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _value(node)
    if not isinstance(node, yaml.SequenceNode) or depth:
        raise ValueError("write true, false, a number, a text, or a list of such")
    return [_plain(item, depth + 1) for item in node.value]


def _reason(error: Exception) -> str:
    """Returns a parser's complaint on one line, without a copy of what it complains of."""
    if isinstance(error, yaml.MarkedYAMLError):
        said = " ".join(part for part in (error.context, error.problem) if part)
        return shortened(" ".join(said.split()))
    if isinstance(error, yaml.reader.ReaderError):
        return f"the character number {error.position} is refused ({shortened(error.reason, 80)})"
    return shortened(" ".join(str(error).split()), 300)


def show(path: KeyPath) -> str:
    """Returns a key path as people write it: ``cells[0].pruners``."""
    text = ""
    for part in path:
        name = part if isinstance(part, int) else shortened(part, _LONGEST_PATH)
        text += f"[{name}]" if isinstance(part, int) else f".{name}" if text else str(name)
    return text


def yaml_file(kind: str, name_or_path: str | Path, folder: Path) -> Path:
    """Returns the file of a name that ships in a folder, or of a path that ends in ``.yaml`` or ``.yml``.

    Args:
        kind: What it is, for the refusal: ``suite``.
        name_or_path: The name, or the path.
        folder: Where those that ship lie.

    Raises:
        UserError: None of that name ships; the nearest are named.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return path
    path = folder / f"{name_or_path}.yaml"
    if not path.is_file():
        shipped = sorted(file.stem for file in folder.glob("*.yaml"))
        raise UserError(did_you_mean(kind, str(name_or_path), shipped) + " A path must end in .yaml.")
    return path


class Document:
    """One YAML file: its data, and the line on which each key stands.

    Args:
        path: The file.

    Raises:
        UserError: The file is missing, is no YAML, holds a key twice, is no mapping at the top, or is beyond the
            limits on size, depth, values (aliases counted as often as they stand) and digits.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[KeyPath, int] = {}
        self._built = 0
        try:
            node = _compose(read_regular(path, MOST_BYTES).decode("utf-8-sig"))
        except UserError as error:
            raise UserError(f"{self._name} cannot be read: {error}") from error
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self._name} cannot be read: it isn't UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8."
            ) from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
            what = "is refused" if isinstance(error, _Limit) else "is not YAML"
            raise UserError(f"{self._name}{where}: the file {what}: {_reason(error)}.") from error
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{self._name} must hold a mapping of keys to values at its top.")
        self._aliases: set[int] = set()
        self.root = Section(self, (), self._build(node, ()))

    @property
    def _name(self) -> str:
        return shortened(self.path)

    def _build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._lines[path] = node.start_mark.line + 1
        self._built += 1
        if self._built > MOST_VALUES:
            raise self.refusal(path, f"with its aliases the file holds more than {MOST_VALUES:,} values")
        if id(node) in self._aliases:
            raise self.refusal(path, "an anchor that holds itself is refused")
        if len(path) > DEEPEST:
            raise self.refusal(path, f"with its aliases the file is nested more than {DEEPEST} levels deep")
        if isinstance(node, yaml.MappingNode):
            if node.tag != _TAG + "map":
                raise self.refusal(path, f"the type {shortened(node.tag, 60)!r} is refused; write a plain mapping")
            self._aliases.add(id(node))
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    raise self.refusal(path, "a key that is a list or a mapping is refused; write a word", line=line)
                key = key_node.value
                if key in result:
                    raise self.refusal((*path, key), "the key stands here twice", line=line)
                result[key] = self._build(value_node, (*path, key))
                self._lines[(*path, key)] = line
            self._aliases.discard(id(node))
            return result
        if isinstance(node, yaml.SequenceNode):
            if node.tag != _TAG + "seq":
                raise self.refusal(path, f"the type {shortened(node.tag, 60)!r} is refused; write a plain list")
            self._aliases.add(id(node))
            items = [self._build(item, (*path, i)) for i, item in enumerate(node.value)]
            self._aliases.discard(id(node))
            return items
        assert isinstance(node, yaml.ScalarNode)
        try:
            return _value(node)
        except ValueError as error:
            raise self.refusal(path, f"the value cannot be read: {error}.") from error

    def refusal(self, path: KeyPath, why: str, line: int | None = None) -> UserError:
        """Returns the error that names the file, the line and the key path, then says why."""
        return UserError(f"{self.place(path, line)}: {why}")

    def place(self, path: KeyPath, line: int | None = None) -> str:
        """Returns the file, the line and the key path, as errors begin: ``x.yaml, line 7, cells[0].eps``."""
        number = line
        for length in range(len(path), -1, -1):
            if number is None:
                number = self._lines.get(path[:length])
        where = show(path)
        return f"{self._name}, line {number}{', ' + where if where else ''}"


class Section:
    """A mapping of a document, read key by key; what is left over is refused by `finish`.

    Args:
        document: The file it stands in.
        path: Where in the file.
        data: The mapping.
    """

    def __init__(self, document: Document, path: KeyPath, data: dict[str, Any]) -> None:
        self.document = document
        self.path = path
        self.data = data
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def refusal(self, key: str | int | None, why: str) -> UserError:
        """Returns the error for one of the section's keys, or for the section itself."""
        return self.document.refusal(self.path if key is None else (*self.path, key), why)

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Returns a value, checked for its type; an int is taken where a float is asked for.

        Raises:
            UserError: The key is missing and has no default, or the value is of another type.
        """
        self._asked.add(key)
        if key not in self.data:
            if default is None:
                raise self.refusal(key, f"the key {key!r} is missing; it must be {_NAMES[kind]}.")
            return default
        return self._typed(self.data[key], kind, (*self.path, key))

    def _typed(self, value: Any, kind: type[T], path: KeyPath) -> T:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
            raise self.document.refusal(path, f"{shortened(repr(value))} is refused; it must be {_NAMES[kind]}.")
        return value

    def take_list(
        self,
        key: str,
        kind: type[T],
        check: Callable[[T], Any] | None = None,
        default: tuple[T, ...] | None = None,
    ) -> tuple[T, ...]:
        """Returns a list's items (a single value counts as a list of one), each checked, none twice, at least one."""
        self._asked.add(key)
        if key not in self.data and default is not None:
            return default
        if key not in self.data:
            raise self.refusal(key, f"the key {key!r} is missing; it must be a list.")
        value = self.data[key]
        if not isinstance(value, list):
            value = [value]
        if not value:
            raise self.refusal(key, "the list is empty; it must hold at least one value.")
        items: list[T] = []
        texts = set()
        for i, item in enumerate(value):
            typed = self._typed(item, kind, (*self.path, key, i))
            # By their texts: not everything that YAML holds can be in a set.
            if repr(typed) in texts:
                raise self.document.refusal((*self.path, key, i), f"{shortened(repr(item))} stands in the list twice.")
            texts.add(repr(typed))
            if check is not None:
                try:
                    check(typed)
                except UserError as error:
                    raise self.document.refusal((*self.path, key, i), str(error)) from error
            items.append(typed)
        return tuple(items)

    def section(self, key: str) -> Section | None:
        """Returns the mapping under `key`, or None where the key is missing."""
        self._asked.add(key)
        if key not in self.data:
            return None
        return Section(self.document, (*self.path, key), self._typed(self.data[key], dict, (*self.path, key)))

    def sections(self, key: str) -> list[Section]:
        """Returns the mappings of the list under `key`, at least one."""
        items = self.take(key, list)
        if not items:
            raise self.refusal(key, "the list is empty; it must hold at least one mapping.")
        return [
            Section(self.document, (*self.path, key, i), self._typed(item, dict, (*self.path, key, i)))
            for i, item in enumerate(items)
        ]

    def finish(self, also: Iterable[str] = ()) -> None:
        """Refuses keys that nobody asked for.

        Raises:
            UserError: There is one; the message names the nearest known key.
        """
        for key in self.data:
            if key not in self._asked and key not in set(also):
                raise self.refusal(key, did_you_mean("key", key, self._asked | set(also)))
