"""Pins: the known definitions of tools, and what became of them since.

`mcp.lock.yaml` has a digest for each tool of each server: sha256 of the canonical JSON (sorted keys, no spaces, numbers
as they read) of the fields that a model or its client goes by. `extproc mcp pin` writes it, and
`extproc mcp diff` shows the difference. The file is read again when it changes.
"""

from __future__ import annotations

import hashlib
import logging
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from extproc.mcp.catalogue import Entry

FIELDS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""Fields of a definition that a pin covers, those of a tool."""
MAX_FILE = 16 << 20  # bytes
_HEAD = """\
# Known definitions of tools: server, tool, sha256 of its definition. Written by `extproc mcp pin`.
# Read `extproc mcp diff` before you pin a changed tool again.
"""
_EVERY = 1.0  # seconds between looks at the file
_sorted = msgspec.json.Encoder(order="sorted").encode

log = logging.getLogger(__name__)

Lock = Mapping[str, Mapping[str, str]]
"""Server -> tool -> digest."""


def canonical(definition: Mapping[str, Any]) -> bytes:
    """The fields that a pin covers, as canonical JSON."""
    return _sorted({name: definition[name] for name in FIELDS if name in definition})


def digest(definition: Mapping[str, Any]) -> str:
    """The digest of a definition as it was decoded."""
    return hashlib.sha256(canonical(definition)).hexdigest()


def digest_of(entry: Entry) -> str:
    """The digest of a tool's definition."""
    return digest({name: entry.value(name) for name in FIELDS if name in entry.fields})


def invisible(value: Any) -> bool:
    """True where a text at or below `value`, or the name of a field, has characters that people do not see: format
    characters, tags, variation selectors beyond those of emoji.
    """
    return any(_hides(text) for text in texts(value))


def texts(value: Any) -> Iterator[str]:
    """All texts at or below `value`, the names of fields too."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            waiting += [*node.keys(), *node.values()]
        elif isinstance(node, list):
            waiting += node


def _hides(text: str) -> bool:
    if text.isascii() and text.isprintable():
        return False
    return any(unicodedata.category(char) == "Cf" or "\U000e0000" <= char <= "\U000e0fff" for char in text)


def write(pins: Lock) -> str:
    """The text of a lock file."""
    ordered = {server: dict(sorted(pins[server].items())) for server in sorted(pins)}
    return _HEAD + yaml.safe_dump({"version": 1, "servers": ordered}, sort_keys=False, allow_unicode=True)


def read(text: str) -> Lock:
    """The pins in the text of a lock file. Raises ValueError."""
    try:
        tree = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        raise ValueError("it is not YAML") from None
    servers = tree.get("servers") if isinstance(tree, dict) and tree.get("version") == 1 else None
    if not isinstance(servers, dict):
        raise ValueError("it is no lock file of version 1")  # noqa: TRY004 - of the text
    for server, tools in servers.items():
        if not isinstance(server, str) or not isinstance(tools, dict):
            raise ValueError("a server has a mapping of tools")  # noqa: TRY004
        for tool, pin in tools.items():
            if not isinstance(tool, str) or not isinstance(pin, str) or len(pin) != len(hashlib.sha256().hexdigest()):
                raise ValueError(f"{server}: a tool has a sha256 of 64 digits")
    return servers


class Pins:
    """The pins of a file, read again when it changes. Without a readable file nothing is known."""

    def __init__(self, path: str, now: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path)
        self._now = now
        self._looked = -_EVERY
        self._stamp: tuple[int, ...] | None = ()
        self._pins: Lock = {}
        self.version = 0  # grows with each change

    def find(self, server: str, tool: str) -> str | None:
        """The digest of a tool; None where it was never pinned."""
        self.look()
        return self._pins.get(server, {}).get(tool)

    def look(self) -> None:
        """Read the file where it changed, once a second at most. An unreadable one leaves no pin."""
        if (now := self._now()) - self._looked < _EVERY:
            return
        self._looked = now
        try:
            found = self._path.stat()
            stamp: tuple[int, ...] | None = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            stamp = None
        if stamp == self._stamp:
            return
        self._stamp, self._pins = stamp, self._read()
        self.version += 1

    def _read(self) -> Lock:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_FILE + 1)
            if len(data) > MAX_FILE:
                raise ValueError("it is too large")
            return read(data.decode())
        except (OSError, ValueError) as error:
            log.error("the pins of tools cannot be read (%s): every tool counts as new", type(error).__name__)  # noqa: TRY400
            return {}


def changes(known: Lock, found: Lock) -> Sequence[tuple[str, str, str]]:
    """The differences, as (server, tool, word): new, changed, gone."""
    told: list[tuple[str, str, str]] = []
    for server in sorted({*known, *found}):
        before, now = known.get(server, {}), found.get(server, {})
        for tool in sorted({*before, *now}):
            if tool not in before:
                told.append((server, tool, "new"))
            elif tool not in now:
                told.append((server, tool, "gone"))
            elif before[tool] != now[tool]:
                told.append((server, tool, "changed"))
    return told
