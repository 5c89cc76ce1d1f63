"""Pins: the digests of known definitions, and changes since.

`mcp.lock.yaml` has a digest for each definition of each server: sha256 of its canonical JSON (sorted keys, no spaces,
numbers as they read). A digest covers all that clients get of a definition: all fields of tools, prompts, resources and
templates, and the server's instructions. `extproc mcp pin` writes it, and `extproc mcp diff` shows the difference. The
file is read again when it changes.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml

from extproc.tools.mcp.catalogue import Definition, Kind

VERSION = 2
MAX_FILE = 16 << 20  # most bytes of a lock file
_HEAD = """\
# Known definitions: server, kind, name, sha256 of the definition. Written by `extproc mcp pin`.
# Read `extproc mcp diff` before you pin a changed definition again.
"""
_OLD = (
    "it is of version 1, which covers a part of each tool and nothing else: look at `extproc mcp diff`, then renew it "
    "with `extproc mcp pin`"
)
_EVERY = 1.0  # seconds between checks of the file
_HEX = re.compile(r"[0-9a-f]{64}").fullmatch
_MOMENT = re.compile(r"[0-9T:.Z+-]{1,40}").fullmatch
_sorted = msgspec.json.Encoder(order="sorted").encode

log = logging.getLogger(__name__)


class OldError(ValueError):
    """The lock file has an older version. The text says how to renew the file."""


Key = tuple[str, str]
"""Kind and name of a definition."""
Lock = Mapping[str, Mapping[Key, str]]
"""Server -> kind and name -> digest."""


def digest(definition: Mapping[str, Any], kind: Kind = "tools") -> str:
    """The digest of a decoded definition. It leaves out the size and the last change of a resource, which describe the
    content.
    """
    if kind == "resources":
        definition = {name: value for name, value in definition.items() if name != "size" or type(value) is not int}
        notes = definition.get("annotations")
        if isinstance(notes, dict) and _MOMENT(str(notes.get("lastModified"))):
            notes = {name: value for name, value in notes.items() if name != "lastModified"}
            definition = {**definition, "annotations": notes}
    return hashlib.sha256(_sorted(definition)).hexdigest()


def digest_of(entry: Definition) -> str:
    """The digest of a definition."""
    return digest({name: entry.value(name) for name in entry.fields}, entry.kind)


def write(pins: Lock) -> str:
    """The text of a lock file."""
    servers: dict[str, dict[str, dict[str, str]]] = {}
    for server in sorted(pins):
        kinds: dict[str, dict[str, str]] = servers.setdefault(server, {})
        for (kind, name), pin in sorted(pins[server].items()):
            kinds.setdefault(kind, {})[name] = pin
    return _HEAD + yaml.safe_dump({"version": VERSION, "servers": servers}, sort_keys=False, allow_unicode=True)


def read(text: str) -> Lock:
    """The pins in the text of a lock file. Raises ValueError, with the remedy for a file of an older version."""
    try:
        tree = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        raise ValueError("it is not YAML") from None
    if isinstance(tree, dict) and tree.get("version") == 1:
        raise OldError(_OLD)
    servers = tree.get("servers") if isinstance(tree, dict) and tree.get("version") == VERSION else None
    if not isinstance(servers, dict):
        raise ValueError(f"it is no lock file of version {VERSION}")  # noqa: TRY004 - of the text
    return {server: dict(_pins(server, kinds)) for server, kinds in servers.items()}


def _pins(server: Any, kinds: Any) -> Iterator[tuple[Key, str]]:
    if not isinstance(server, str) or not isinstance(kinds, dict) or not {*kinds} <= {*get_args(Kind)}:
        raise ValueError(f"a server has a mapping of {', '.join(get_args(Kind))}")
    for kind, pins in kinds.items():
        if not isinstance(pins, dict):
            raise ValueError(f"{server}: {kind} are a mapping")  # noqa: TRY004
        for name, pin in pins.items():
            if not isinstance(name, str) or not isinstance(pin, str) or not _HEX(pin):
                raise ValueError(f"{server}: a definition has a sha256 of 64 digits")
            yield (kind, name), pin


class Pins:
    """The pins of a file, read again when it changes. Without a readable file no pins are known; `problem` says why."""

    def __init__(self, path: str, now: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path)
        self._now = now
        self._looked = -_EVERY
        self._stamp: tuple[int, ...] | None = ()
        self._pins: Lock = {}
        self.problem = ""
        self.version = 0  # grows with each change of the file

    def find(self, server: str, kind: Kind, name: str) -> str | None:
        """The pinned digest of a definition; None if it was never pinned."""
        self.look()
        return self._pins.get(server, {}).get((kind, name))

    def names(self, server: str, kind: Kind) -> Collection[str] | None:
        """The pinned names of a server; None without a readable file."""
        self.look()
        return None if self.problem else [name for each, name in self._pins.get(server, {}) if each == kind]

    def look(self) -> None:
        """Read the file if it has changed, once a second at most. An unreadable file leaves no pins."""
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
        self.problem = ""
        try:
            return load(self._path)
        except OSError as error:
            self.problem = f"it cannot be read ({type(error).__name__})"
        except ValueError as error:
            self.problem = "it is not UTF-8" if isinstance(error, UnicodeError) else str(error)
        log.error("the file of pins %s is not used, so every definition counts as new: %s", self._path, self.problem)
        return {}


def load(path: Path) -> Lock:
    """The pins of a file. Raises OSError, and ValueError for a file that is no lock file."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ValueError(f"it is larger than {MAX_FILE >> 20} MiB")
    return read(data.decode())


def changes(known: Lock, found: Lock) -> Sequence[tuple[str, Key, str]]:
    """The differences, as (server, kind and name, word): new, changed, gone."""
    told: list[tuple[str, Key, str]] = []
    for server in sorted({*known, *found}):
        before, now = known.get(server, {}), found.get(server, {})
        for key in sorted({*before, *now}):
            if key not in before:
                told.append((server, key, "new"))
            elif key not in now:
                told.append((server, key, "gone"))
            elif before[key] != now[key]:
                told.append((server, key, "changed"))
    return told
