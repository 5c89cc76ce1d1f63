"""Values as people write them in YAML: durations, sizes, secrets, patterns. `offline` is for settings that are examined
on another machine: missing secrets, files and packages are assumed to exist.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 366 * 86400.0
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB)?")
_BYTES = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODEL_NAME = re.compile(r"[\x21-\x7e]{1,256}")


class Section(BaseModel):
    """A mapping of the filter YAML: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


PeerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:/*@-]{1,256}$")]
"""A whole subject alternative name of a peer's certificate: `edge.example.com`, `spiffe://cluster.local/ns/edge/…`."""


def seconds(value: object) -> float:
    """The seconds of a duration as people write it: `250ms`, `30s`, `2h`. Raises ValueError."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a duration is a number with a unit: 250ms, 30s, 5m, 2h, 7d")
    found = float(match[1]) * _SECONDS[match[2]]
    if found > _LONGEST:
        raise ValueError("a duration is at most 366d")
    return found


def _size(value: object) -> object:
    if type(value) is int and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a size is a number of bytes, or a number with a unit: 64KiB, 10MiB")
    return int(match[1]) * _BYTES[match[2]]


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be greater than 0")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name has 1 to 63 letters, digits, dots, dashes or underscores")
    return value


def _model_name(value: str) -> str:
    if not is_model_name(value):
        raise ValueError("a model name has 1 to 256 printable ASCII characters and no spaces")
    return value


def is_model_name(value: str) -> bool:
    """True when `value` fits into a header and a log line: 1 to 256 printable ASCII characters without spaces."""
    return _MODEL_NAME.fullmatch(value) is not None


def is_variable(name: str) -> bool:
    """True when an environment variable can have this name. A secret pasted by mistake mostly fails this test."""
    return _VARIABLE.fullmatch(name) is not None


@dataclass(slots=True, frozen=True)
class Secret:
    """Reference to a secret, never the secret itself: `env:NAME` or `file:/path`."""

    scheme: str
    where: str

    def read(self) -> str | None:
        """The secret without surrounding white space; None when it is missing or empty."""
        return self._read() or stand_in(str(self))

    def read_or_last(self) -> str | None:
        """`read`. While a file is missing, the last value that this method read from it in this process."""
        found = self.read()
        if found is None:
            return _last.get(self)
        if self.scheme == "file":
            _last[self] = found
        return found

    def _read(self) -> str | None:
        if self.scheme == "env":
            return os.environ.get(self.where, "").strip()
        try:
            return Path(self.where).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):  # no UTF-8, or no path
            return None

    def __str__(self) -> str:
        return f"{self.scheme}:{self.where}"


_last: dict[Secret, str] = {}


def files_of(section: object) -> Sequence[str]:
    """Files of all secrets in settings, at any depth. Excludes secrets of providers and in addresses of stores, which
    are read when needed.
    """
    found: dict[str, None] = {}
    todo = [section]
    while todo:
        value = todo.pop()
        # First test: settings may have hundreds of thousands of such values.
        if value is None or isinstance(value, (str, int, float)):
            continue
        if isinstance(value, Secret):
            if value.scheme == "file":
                found[value.where] = None
        elif isinstance(value, Section):
            todo += [each for name, each in vars(value).items() if name != "providers"]
            todo.append(getattr(value, "secret", None))  # secret of a consumer's key
        elif isinstance(value, (list, tuple)):
            todo += value
        elif isinstance(value, Mapping):
            todo += value.values()
    return sorted(found)


def secret(value: object) -> Secret:
    """Parse a reference to a secret. The ValueError does not repeat `value`, which may be the secret itself."""
    if isinstance(value, Secret):
        return value
    if isinstance(value, str):
        scheme, _, where = value.partition(":")
        if (scheme == "env" and is_variable(where)) or (scheme == "file" and where):
            return Secret(scheme, where)
    # The value may be the secret itself: never repeat it.
    raise ValueError("a secret is a reference, env:NAME or file:/path, never the secret itself")


def show_duration(seconds: float) -> str:
    """A duration as people write it: 2592000 is `30d`, 90 is `90s`, 0.005 is `5ms`."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:g}{unit}"
    return f"{seconds:g}s" if seconds % 1 == 0 else f"{seconds * 1000:g}ms"


def show_size(size: int) -> str:
    """A number of bytes as people write it: 20971520 is `20MiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _schema(pattern: str, *examples: str) -> Any:
    from pydantic import WithJsonSchema  # noqa: PLC0415

    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


DURATION = f"^(?:{_DURATION.pattern})$"
"""The pattern of a duration in the JSON Schema of the settings."""
SIZE = f"^(?:{_SIZE.pattern})$"
"""The pattern of a size in the JSON Schema of the settings."""
SECRET = "^(?:(env|file):.+)$"  # noqa: S105 - a pattern
"""The pattern of a reference to a secret in the JSON Schema of the settings."""

Duration = Annotated[float, BeforeValidator(seconds), _schema(DURATION, "250ms", "30s")]
"""Seconds, written `250ms`, `30s`, `5m`, `2h`, `7d`."""
PositiveDuration = Annotated[
    float, BeforeValidator(seconds), AfterValidator(_positive), _schema(DURATION, "250ms", "30s")
]
Size = Annotated[int, BeforeValidator(_size), _schema(SIZE, "64KiB", "10MiB")]
"""Bytes, written `64KiB`, `10MiB` or as a plain number."""
SecretRef = Annotated[Secret, BeforeValidator(secret), _schema(SECRET, "env:OPENAI_API_KEY")]


def _webhook(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password:
        raise ValueError("a webhook must be https://host/path, without a user or password")
    url.port  # noqa: B018 - raises ValueError
    return value


WebhookURL = Annotated[str, AfterValidator(_webhook)]
Name = Annotated[str, AfterValidator(_name)]
ModelName = Annotated[str, AfterValidator(_model_name)]


@lru_cache(maxsize=4096)  # thousands of consumers may have equal grants
def _matcher(pattern: str) -> Callable[[str], object]:
    first, *others = (re.escape(part) for part in pattern.split("*"))
    # The leftmost match of a middle part is enough: without backtracking, the time stays linear.
    middle = "".join(f"(?>.*?{part})" for part in others[:-1])
    return re.compile(f"{first}{middle}.*{others[-1]}", re.DOTALL).fullmatch


class Pattern:
    """A name with `*` for any characters: `claude-*`, `*`, `gpt-6-luna`."""

    __slots__ = ("_match", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._match = _matcher(text) if "*" in text else None

    def __call__(self, value: str) -> bool:
        return value == self.text if self._match is None else self._match(value) is not None


class Patterns:
    """Patterns of which any may match. Names without `*` cost one lookup together."""

    __slots__ = ("_any", "_names", "_wild", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        self._any = "*" in self.texts
        self._names = frozenset(text for text in self.texts if "*" not in text)
        self._wild = [_matcher(text) for text in self.texts if "*" in text]

    def __call__(self, value: str) -> bool:
        return self._any or value in self._names or any(match(value) is not None for match in self._wild)


def is_loopback(host: str) -> bool:
    """True for an address that only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_private(host: str) -> bool:
    """True for an address or a name that is not reached over the open internet."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost" or "." not in host or host.endswith((".svc", ".local", ".internal", ".localhost"))


def meant(name: str, names: Iterable[str]) -> str:
    """A question with the nearest of `names`, or an empty text: `did you mean 'gcp_gemini'?` for `gemini`."""
    known = {each.lower(): each for each in names}
    word = name.lower()
    near = [word] if word in known else [each for each in known if len(word) > 2 and word in each.split("_")]
    near = near or difflib.get_close_matches(word, known, 1, cutoff=0.65)
    return f"did you mean '{known[near[0]]}'?" if near else ""


# --- settings of another machine


_OFFLINE: ContextVar[bool] = ContextVar("offline", default=False)


@contextmanager
def offline(active: bool = True) -> Iterator[None]:
    """Let stand-ins replace missing secrets and files until the end of the block."""
    token = _OFFLINE.set(active)
    try:
        yield
    finally:
        _OFFLINE.reset(token)


def is_offline() -> bool:
    return _OFFLINE.get()


def stand_in(reference: str) -> str | None:
    """The stand-in text of a missing secret, different for each reference. None: the secret counts as missing."""
    return hashlib.sha256(reference.encode()).hexdigest() if _OFFLINE.get() else None


def has_package(name: str) -> bool:
    return _OFFLINE.get() or importlib.util.find_spec(name) is not None


def has_file(path: str) -> bool:
    return _OFFLINE.get() or Path(path).is_file()
