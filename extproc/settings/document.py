"""A YAML file as plain values with their places, and its problems."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import yaml

from extproc.settings.errors import slip

MAX_NODES = 200_000  # most values; an alias counts each time it is used
MAX_DEPTH = 64
MAX_TOLD = 100  # most errors of one file that are reported
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_TOO_MANY = f"more than {MAX_NODES} values"
_TAB = "a tab; YAML is indented with spaces"
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_TEXT = "tag:yaml.org,2002:str"
_BOOL = "tag:yaml.org,2002:bool"
_MERGE = "tag:yaml.org,2002:merge"


KeyPath = tuple[str | int, ...]
"""The keys that lead to a setting."""
Found = tuple[KeyPath, str]
"""The keys that lead to a setting, and its problem."""


@dataclass(slots=True, frozen=True)
class SettingsProblem:
    """An error or a lint of the filter YAML, with its place."""

    path: str
    message: str
    line: int = 1
    column: int = 1
    file: str = ""  # another file than the main one

    def show(self, file: str) -> str:
        return f"{self.file or file}:{self.line}:{self.column}: {self.path or 'file'}: {self.message}"


class ConfigError(ValueError):
    """The errors of a filter YAML, at most `MAX_TOLD` of them."""

    def __init__(self, file: str, problems: Sequence[SettingsProblem]) -> None:
        self.problems = tuple(problems[:MAX_TOLD])
        more = [f"{file}: and more"] if len(problems) > MAX_TOLD else []
        super().__init__("\n".join([*(problem.show(file) for problem in self.problems), *more]))


@contextmanager
def without_collections() -> Iterator[None]:
    """Pause the collection of cycles, for a bounded amount of work that makes many objects at once and leaves no
    cycles. The pause applies to the whole process.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def not_yaml(error: Exception, text: str) -> SettingsProblem:
    """The place where `text` is not YAML, the reason, and the likely mistake."""
    mark = (error.problem_mark or error.context_mark) if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is None or not isinstance(error, yaml.MarkedYAMLError):
        return SettingsProblem("", f"not YAML: {error}".splitlines()[0])
    reason = _TAB if text[mark.index : mark.index + 1] == "\t" else error.problem or error.context
    hint = "" if reason == _TAB else slip("".join(text.splitlines()[mark.line : mark.line + 1]))
    return SettingsProblem("", f"not YAML: {reason}{hint}", mark.line + 1, mark.column + 1)


class Document:
    """YAML as plain values, with the place of each of them, from PyYAML's nodes.

    ruamel.yaml keeps places too. A file of 4 MiB takes its version 0.19 (round-trip) 36 s of CPU and 600 MB of memory,
    against 8 s and 340 MB here. It stops at the first duplicate key, while all are reported here; it expands merge
    keys, bounds neither nesting nor the values that aliases multiply, and ends `[[[[…` in a RecursionError after 15 s.
    yaml-where is built on it; libfyaml and rapidyaml give plain values no places.
    """

    def __init__(self, text: str, file: str, *, included: bool = False) -> None:
        self._root: yaml.Node | None = None
        self._file = file if included else ""
        self._problems: list[SettingsProblem] = []
        self._count = 0
        try:
            with without_collections():  # collecting cycles would take most of the time
                self.tree = self._read(text)
        except (yaml.YAMLError, ValueError) as error:
            self._problems.append(replace(not_yaml(error, text), file=self._file))
        if not self._problems and not isinstance(self.tree, dict):
            self._add((), None, "the file must be a mapping of settings")
        if self._problems:
            raise ConfigError(file, self._problems)

    def _read(self, text: str) -> Any:
        _check_size(text)
        loader = yaml.CSafeLoader(text)
        try:
            self._root = node = loader.get_single_node()
            return {} if node is None else self._value(loader, node, ())
        finally:
            loader.dispose()

    @property
    def root(self) -> yaml.Node | None:
        """The mapping with the places of all values; None for an empty file."""
        return self._root

    def problem(self, path: Sequence[str | int], message: str) -> SettingsProblem:
        """A problem at `path`, or at the nearest place above it that exists."""
        mark = None if self._root is None else _mark(self._root, path)
        text = ".".join(str(part) for part in path if part != "[key]")
        return (
            SettingsProblem(text, message, file=self._file)
            if mark is None
            else SettingsProblem(text, message, mark.line + 1, mark.column + 1, self._file)
        )

    def _add(self, path: tuple[str | int, ...], mark: yaml.Mark | None, message: str) -> None:
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        self._problems.append(SettingsProblem(".".join(map(str, path)), message, line, column, self._file))

    def _value(self, loader: yaml.CSafeLoader, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        self._count += 1
        if self._count > MAX_NODES:
            raise ValueError(_TOO_MANY)
        if len(path) > MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            self._add(path, node.start_mark, "tags (!) are not supported")
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, item, (*path, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return _scalar(loader, node)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(loader, key_node)
            if key_node.tag == _MERGE:
                self._add(path, key_node.start_mark, "merge keys (<<) are not supported; repeat the settings")
            elif not isinstance(key, str):
                self._add(path, key_node.start_mark, f"{key!r}: a key must be a string; put it in quotes")
            elif key in result:
                self._add((*path, key), key_node.start_mark, "this key stands here twice")
            else:
                result[key] = self._value(loader, value_node, (*path, key))
        return result


def _mark(node: yaml.Node, path: Sequence[str | int]) -> yaml.Mark:
    """The place of a value, in a mapping that of its key; if it does not exist, the place of the nearest value above
    it.
    """
    mark = node.start_mark
    for part in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            mark = node.start_mark
        elif isinstance(node, yaml.MappingNode) and (pair := next((e for e in node.value if e[0].value == part), None)):
            mark, node = pair[0].start_mark, pair[1]
        else:
            break
    return mark


def _key(loader: yaml.CSafeLoader, node: yaml.Node) -> Any:
    """A key of a mapping; None when it is not a scalar."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    return node.value if node.tag in (_TEXT, _BOOL, _MERGE) else loader.construct_object(node)


def _scalar(loader: yaml.CSafeLoader, node: yaml.Node) -> Any:
    """A plain value. Only true and false are booleans, as in YAML 1.2: `off` is a word, and may be a name."""
    word = node.tag == _TEXT or (node.tag == _BOOL and node.value.lower() not in ("true", "false"))
    return node.value if word else loader.construct_object(node)


def _check_size(text: str) -> None:
    """Raise for YAML with too many values, before a node of it is made; and for YAML nested too deep for PyYAML, whose
    recursion is in C and ends the process. Values that aliases multiply are counted with the nodes.
    """
    count = 0
    key_next: list[bool | None] = []  # for each open collection, whether a key is next; None in a list
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            key_next.pop()
        elif isinstance(event, yaml.NodeEvent):
            if not key_next or not key_next[-1]:
                count += 1
            if key_next and key_next[-1] is not None:
                key_next[-1] = not key_next[-1]
            if isinstance(event, yaml.CollectionStartEvent):
                key_next.append(True if isinstance(event, yaml.MappingStartEvent) else None)
            if count > MAX_NODES or len(key_next) > MAX_DEPTH:
                problem = _TOO_MANY if count > MAX_NODES else _TOO_DEEP
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)  # type: ignore[arg-type]
