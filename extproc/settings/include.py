"""Settings in several files: `include` names the files of others, such as teams, and the keys that they may set.

Everywhere else settings are one text. Here the files become one: the text of the main file, and behind it each other
file after a NUL, which no YAML has, and two lines with the number of its entry in `include` and its path.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError

from extproc.settings.document import ConfigError, Document, SettingsProblem
from extproc.words.values import Name, Section

MOST_FILES = 2000
"""Most files of all entries of `include` together."""
_NUL = "\0"
_NO_YAML = b"\x01"
"""In place of a NUL in a file: YAML allows neither."""
_includes = re.compile(rb"(?m)^[\"']?include[\"']?[ \t]*:").search
_part = re.compile(r"(\d{1,4}) ([^\n]*)\n([^\n]+)\n(.*)", re.DOTALL | re.ASCII).fullmatch
_wildcard = re.compile(r"[*?\[]").search

Key = Literal["consumers", "budgets", "virtual_models", "models"]


class IncludeSettings(Section):
    """Files beside this one, each with a part of the settings: what its team owns."""

    files: Annotated[
        Sequence[Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]{1,1024}$")]],
        Field(min_length=1, max_length=100),
    ] = Field(
        description="Files, as paths from the folder of this file; `*` stands for a part of a name, `**` for folders. "
        "They are read in the order of their names. All files together have the size limit of one."
    )
    team: Name | None = Field(
        None,
        description="Team that owns the files. Its consumers are members of it, its budgets apply to it alone, and the "
        "names of its models begin with its own and `/`. Webhooks stand in this file alone. Default: none of this.",
    )
    may: Annotated[Sequence[Key], Field(min_length=1, max_length=4)] = Field(
        ("consumers", "budgets"),
        description="Keys that the files may set: `consumers`, `budgets`, `virtual_models`, `models`. Nothing in them "
        "replaces what stands elsewhere: a name that is there twice is an error, and each budget limits beside the "
        "others. A file with `models` chooses providers and their models.",
    )


@dataclass(slots=True, frozen=True)
class _Part:
    """The text of an included file; or the reason why it cannot be read."""

    entry: int
    path: str
    text: str = ""
    problem: str = ""


def join(main: bytes, path: Path, read: Callable[[Path], bytes]) -> bytes:
    """The content of the file `path`, `main`, and of the files that it includes, as one. `read` returns the bytes of a
    path, or raises OSError.
    """
    main = main.replace(_NUL.encode(), _NO_YAML)
    if not _includes(main):
        return main
    parts = [main]
    for entry, file in _files(_patterns(main), path.parent):
        try:
            content, problem = read(file).replace(_NUL.encode(), _NO_YAML), ""
        except OSError as error:
            content, problem = b"", error.strerror or "it cannot be read"
        parts.append(f"\0{entry} {problem}\n{file}\n".encode() + content)
    return b"".join(parts)


def split(text: str) -> tuple[str, Sequence[_Part]]:
    """The text of the main file, and the included files. A text that `join` did not make is one file, with a NUL."""
    main, *rest = text.split(_NUL)
    found = [_part(part) for part in rest]
    if None in found:
        return text, ()
    return main, [_Part(int(part[1]), part[3], part[4], part[2]) for part in found if part is not None]


@lru_cache(maxsize=2)
def _patterns(main: bytes) -> Sequence[Sequence[str]]:
    """The patterns of each entry of `include`, from YAML that may be wrong: `Whole` and the checks say so."""
    try:
        tree = Document(main.decode("utf-8", "replace"), "").tree
    except (ConfigError, yaml.YAMLError):
        return ()
    entries = tree.get("include")
    return [
        [name for name in files if isinstance(name, str) and name.isprintable()]  # `IncludeSettings` refuses the others
        if isinstance(entry, dict) and isinstance(files := entry.get("files"), list)
        else []
        for entry in (entries if isinstance(entries, list) else [])
    ]


def _files(patterns: Sequence[Sequence[str]], folder: Path) -> Iterator[tuple[int, Path]]:
    """(number of the entry, path) of each file, once, at most one more than `MOST_FILES`."""
    seen: set[Path] = set()
    for entry, given in enumerate(patterns):
        for name in given:
            found = [folder / name]
            if _wildcard(name):
                whole = name if Path(name).is_absolute() else f"{glob.escape(str(folder))}/{name}"
                names = glob.glob(whole, recursive=True)  # noqa: PTH207 - without the hidden folders of a ConfigMap
                found = [file for file in map(Path, sorted(names)) if not file.is_dir()]
            for file in found:
                if file not in seen and len(seen) <= MOST_FILES:
                    seen.add(file)
                    yield entry, file


class Whole:
    """The settings of the main file and of the files that it includes, as one tree whose problems have the places of
    their files.
    """

    def __init__(self, main: Document, parts: Sequence[_Part], file: str) -> None:
        self.tree: dict[str, Any] = dict(main.tree)
        self._main = main
        self._places: dict[tuple[str, str | int], tuple[Document, int]] = {}
        self._problems: list[SettingsProblem] = []
        if len(parts) > MOST_FILES:
            raise ConfigError(file, [main.problem(("include",), f"more than {MOST_FILES} files")])
        for part in parts:
            try:
                entry = IncludeSettings.model_validate(main.tree["include"][part.entry])
            except (ValidationError, LookupError, TypeError):
                continue  # the checks of the main file say so
            if part.problem:
                where = ("include", part.entry, "files")
                self._problems.append(main.problem(where, f"{part.path}: {part.problem}"))
                continue
            try:
                self._add(Document(part.text, part.path, included=True), entry)
            except ConfigError as error:
                self._problems += error.problems
        if self._problems:
            raise ConfigError(file, self._problems)

    def problem(self, path: Sequence[str | int], message: str) -> SettingsProblem:
        """See `Document.problem`."""
        if len(path) > 1 and (place := self._places.get((str(path[0]), path[1]))) is not None:
            document, before = place
            own = path[1] - before if isinstance(path[1], int) else path[1]
            return document.problem((path[0], own, *path[2:]), message)
        return self._main.problem(path, message)

    def _add(self, document: Document, entry: IncludeSettings) -> None:
        for key, found in document.tree.items():
            if key not in entry.may:
                message = f"this file may set {', '.join(entry.may)}: see `may` of its entry in `include`"
                self._problems.append(document.problem((key,), message))
            elif isinstance(found, list):
                self._extend(document, key, found, entry.team)
            elif isinstance(found, dict):
                self._unite(document, key, found, entry.team)
            else:
                self._problems.append(document.problem((key,), "must be a list or a mapping, as in the main file"))

    def _extend(self, document: Document, key: str, found: list[Any], team: str | None) -> None:
        known = self.tree.get(key)
        known = list(known) if isinstance(known, list) else []
        for index, item in enumerate(found):
            self._places[key, len(known) + index] = document, len(known)
            if team is not None and isinstance(item, dict):
                self._bind(document, (key, index), item, team)
        self.tree[key] = known + found

    def _bind(self, document: Document, path: tuple[str, int], item: dict[str, Any], team: str) -> None:
        """Bind a consumer or a budget to the team of its file."""
        holder: Any = item
        if path[0] == "budgets":
            holder = item.setdefault("match", {})
            if "alert_webhook" in item:
                message = "a webhook of a budget stands in the main file alone"
                self._problems.append(document.problem((*path, "alert_webhook"), message))
        if isinstance(holder, dict) and holder.setdefault("team", team) != team:
            where = (*path, "match", "team") if path[0] == "budgets" else (*path, "team")
            self._problems.append(document.problem(where, f"must be {team!r}, the team of this file"))

    def _unite(self, document: Document, key: str, found: Mapping[str, Any], team: str | None) -> None:
        known = self.tree.get(key)
        known = dict(known) if isinstance(known, dict) else {}
        for name, value in found.items():
            if name in known:
                self._problems.append(document.problem((key, name), "this name stands in another file, too"))
            elif team is not None and not name.startswith(f"{team}/"):
                message = f"names of this file begin with {team}/, its team"
                self._problems.append(document.problem((key, name), message))
            else:
                known[name] = value
                self._places[key, name] = document, 0
        self.tree[key] = known
