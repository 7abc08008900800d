"""YAML that remembers its lines, and a reader of sections that refuses what it does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from prunecert.errors import UserError, did_you_mean

KeyPath = tuple[str | int, ...]
T = TypeVar("T")

_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a mapping",
}


def show(path: KeyPath) -> str:
    """Returns a key path as people write it: ``cells[0].pruners``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class Document:
    """One YAML file: its data, and the line on which each key stands.

    Args:
        path: The file.

    Raises:
        UserError: The file is missing, is no YAML, holds a key twice, or is no mapping at the top.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[KeyPath, int] = {}
        try:
            with path.open(encoding="utf-8") as stream:
                node = yaml.compose(stream, Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read: {error}.") from error
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{path} must hold a mapping of keys to values at its top.")
        self._loader = yaml.SafeLoader("")
        self._aliases: set[int] = set()
        self.root = Section(self, (), self._build(node, ()))

    def _build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._lines[path] = node.start_mark.line + 1
        if id(node) in self._aliases:
            raise self.refusal(path, "an anchor that holds itself is refused")
        if isinstance(node, yaml.MappingNode):
            self._aliases.add(id(node))
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                if key in result:
                    raise self.refusal((*path, key), "the key stands here twice", line=key_node.start_mark.line + 1)
                result[key] = self._build(value_node, (*path, key))
                self._lines[(*path, key)] = key_node.start_mark.line + 1
            self._aliases.discard(id(node))
            return result
        if isinstance(node, yaml.SequenceNode):
            self._aliases.add(id(node))
            items = [self._build(item, (*path, i)) for i, item in enumerate(node.value)]
            self._aliases.discard(id(node))
            return items
        try:
            return self._loader.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            raise self.refusal(path, f"the value cannot be read: {' '.join(str(error).split())}") from error

    def refusal(self, path: KeyPath, why: str, line: int | None = None) -> UserError:
        """Returns the error that names the file, the line and the key path, then says why."""
        number = line
        for length in range(len(path), -1, -1):
            if number is None:
                number = self._lines.get(path[:length])
        where = show(path)
        return UserError(f"{self.path}, line {number}{', ' + where if where else ''}: {why}")


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
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.document.refusal(path, f"{value!r} is refused; it must be {_NAMES[kind]}.")
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
        for i, item in enumerate(value):
            typed = self._typed(item, kind, (*self.path, key, i))
            if typed in items:
                raise self.document.refusal((*self.path, key, i), f"{item!r} stands in the list twice.")
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
