"""The filter YAML: one file, one schema, every default visible here.

`load` reads it or says all that is wrong with it at once, each with its place: `file:line:column: path: message`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from extproc import guardrails, stores
from extproc.auth import AttributionSettings, AuthSettings, ConsumerSettings, GroupSettings, TeamSettings
from extproc.budgets import LEASE, BudgetSettings
from extproc.ledger import check_ledger
from extproc.prices import DatedPriceSettings
from extproc.providers import ProviderSettings
from extproc.routing.catalog import ModelSettings, VirtualModelSettings
from extproc.settings import checks
from extproc.words.values import ModelName, Name, PositiveDuration, SecretRef, Section, Size, is_loopback

if TYPE_CHECKING:
    GuardrailEntry = guardrails.GuardrailSettings
else:
    GuardrailEntry = guardrails.settings_type()

MAX_FILE = 4 << 20  # bytes
MAX_NODES = 200_000  # values, aliases counted each time they are used
MAX_DEPTH = 64
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_BOOL = "tag:yaml.org,2002:bool"
_MERGE = "tag:yaml.org,2002:merge"

Port = Annotated[int, Field(ge=1, le=65535)]


class TLSSettings(Section):
    certificate: Annotated[str, StringConstraints(pattern="^file:.+")] = Field(description="PEM chain: file:/path")
    key: Annotated[str, StringConstraints(pattern="^file:.+")] = Field(description="PEM key: file:/path")
    client_ca: Annotated[str, StringConstraints(pattern="^file:.+")] | None = Field(
        None, description="PEM authorities of client certificates, file:/path; a certificate of another is refused"
    )
    require_client_certificate: bool = Field(False, description="No connection without a client certificate")

    @model_validator(mode="after")
    def _verifiable(self) -> TLSSettings:
        if self.require_client_certificate and self.client_ca is None:
            raise ValueError("require_client_certificate needs client_ca, against which to verify it")
        return self


class ListenerSettings(Section):
    """Where clients connect."""

    address: str = "0.0.0.0"  # noqa: S104 - it is the public door
    port: Port = 10000
    tls: TLSSettings | None = None
    max_connections: int = Field(20000, ge=1, le=1_000_000)


class StatusSettings(Section):
    """/metrics /healthz /readyz, for probes and scrapers."""

    address: str = "0.0.0.0"  # noqa: S104 - probes and scrapers come from outside the pod
    port: Port = 9090
    stalled_after: PositiveDuration = Field(
        30.0, ge=1, description="/healthz fails when the event loop, which serves all traffic, has stood still so long"
    )


class AdminSettings(Section):
    """The console and the API behind it: usage, budgets, recent exchanges. Needs a token off loopback."""

    address: str = "127.0.0.1"
    port: Port = 9091
    token: SecretRef | None = None

    @model_validator(mode="after")
    def _guarded(self) -> AdminSettings:
        if self.token is None and not is_loopback(self.address):
            raise ValueError("off loopback the admin API needs a token: env:NAME or file:/path")
        return self


class ProcessorSettings(Section):
    """Where Envoy reaches the processor. Whoever can connect here can read prompts and forge verdicts."""

    socket: str | None = Field(None, description="A unix socket, mode 0600; the default: /run/extproc/extproc.sock")
    address: str | None = Field(None, description="host:port on loopback, where Envoy cannot share a socket")
    transport: Literal["native", "grpcio"] = Field(
        "native",
        description="The gRPC server. native: the gateway's own, made for Envoy on a unix socket, for half the CPU. "
        "grpcio: the official library, to compare with or to fall back to. It always serves an `address`",
    )

    @model_validator(mode="after")
    def _one(self) -> ProcessorSettings:
        if self.socket is not None and self.address is not None:
            raise ValueError("give a socket or an address, not both")
        if self.address is not None and "transport" in self.model_fields_set and self.transport == "native":
            raise ValueError("the native transport needs a socket; an address is served by grpcio")
        if self.socket is not None and len(self.socket.encode()) > 100:
            raise ValueError("the path of a unix socket is at most 100 bytes")
        if self.address is not None:
            host, _, port = self.address.rpartition(":")
            if not port.isdecimal() or not 0 < int(port) < 65536 or not is_loopback(host.strip("[]")):
                raise ValueError("the address is host:port on loopback: the connection has no other protection")
        return self

    @property
    def path(self) -> str:
        return self.socket or "/run/extproc/extproc.sock"


class UsageSettings(Section):
    mode: Literal["body"] = Field("body", description="body: counted from the answer")
    cost_in_response: bool = Field(
        False, description="Add `cost`, in USD, to the usage in answers of OpenAI's APIs, where the price is known"
    )


class StoresSettings(Section):
    counters: str = Field(
        "sqlite:data/counters.db",
        description="memory:, sqlite:path, or redis://user@host:6379/0?password=env:NAME (rediss: over TLS)",
    )

    ledger: str = Field(
        "sqlite:data/ledger.db",
        description="One row for each exchange: sqlite:path, postgresql://user@host/db?password=env:NAME, or memory:",
    )
    ledger_keep: PositiveDuration | None = Field(None, description="Rows older than this are deleted; absent: none")

    @model_validator(mode="after")
    def _known(self) -> StoresSettings:
        stores.check_counters(self.counters)
        check_ledger(self.ledger)
        return self


class LimitsSettings(Section):
    request_body: Size = Field(20 << 20, ge=1 << 10, le=64 << 20)
    json_depth: int = Field(128, ge=8, le=512)
    buffered_response: Size = Field(10 << 20, description="A plain answer beyond this passes uncounted")
    sse_event: Size = Field(1 << 20, description="An event beyond this passes uncounted")
    stream_idle: PositiveDuration = Field(600.0, description="Silence after which a stream is ended")
    output_tokens: int = Field(
        4096, ge=1, le=1_000_000_000, description="Of an answer, where neither client nor model sets a limit"
    )
    exchanges: int = Field(10000, ge=1, le=1_000_000, description="In flight; one more is refused: 503 overloaded")
    lease: PositiveDuration = Field(
        LEASE,
        ge=1,
        le=600,
        description="After a process died, how long budgets hold what its requests held; then it is charged",
    )


class TelemetrySettings(Section):
    access_log: Literal["stdout", "off"] = Field("stdout", description="One JSON line for each exchange")
    log_buffer: Size = Field(
        4 << 20,
        ge=64 << 10,
        le=256 << 20,
        description="Log lines that wait for a slow reader of standard output; further lines are counted and dropped",
    )


class Settings(Section):
    """The filter YAML, version 1."""

    listener: ListenerSettings = ListenerSettings()
    status: StatusSettings = StatusSettings()
    admin: AdminSettings = AdminSettings()
    processor: ProcessorSettings = ProcessorSettings()
    providers: Mapping[Name, ProviderSettings] = Field(min_length=1)
    models: Mapping[ModelName, ModelSettings] = Field(min_length=1)
    virtual_models: Mapping[ModelName, VirtualModelSettings] = Field(default_factory=dict)
    prices: Sequence[DatedPriceSettings] = ()
    unknown_price: Literal["warn", "refuse"] = Field(
        "warn",
        description="Of a target, where a budget in USD applies. warn: it counts as nothing; refuse: it is skipped",
    )
    auth: AuthSettings = AuthSettings()
    consumers: Sequence[ConsumerSettings] = ()
    teams: Mapping[Name, TeamSettings] = Field(default_factory=dict)
    groups: Mapping[Name, GroupSettings] = Field(default_factory=dict)
    attribution: AttributionSettings = AttributionSettings()
    budgets: Sequence[BudgetSettings] = ()
    guardrails: Sequence[GuardrailEntry] = ()
    usage: UsageSettings = UsageSettings()
    stores: StoresSettings = StoresSettings()
    limits: LimitsSettings = LimitsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()


@dataclass(slots=True, frozen=True)
class Problem:
    """Something wrong, or worth a second look, and where it stands."""

    path: str
    message: str
    line: int = 1
    column: int = 1

    def show(self, file: str) -> str:
        return f"{file}:{self.line}:{self.column}: {self.path or 'file'}: {self.message}"


class ConfigError(ValueError):
    """Everything that is wrong with a filter YAML."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(problem.show(file) for problem in problems))
        self.problems = tuple(problems)


def load(path: str | Path) -> Settings:
    """Read the filter YAML. Raises ConfigError with every error in it."""
    return parse(_read(path), str(path))


def parse(text: str, file: str = "gateway.yaml") -> Settings:
    """The settings in `text`. Raises ConfigError with every error in it."""
    document = Document(text, file)
    try:
        settings = Settings.model_validate(document.tree)
    except ValidationError as error:
        found = [document.problem(_path(item), _message(item)) for item in error.errors()]
        raise ConfigError(file, found) from None
    problems = [document.problem(path, message) for path, message in checks.contradictions(settings)]
    if problems:
        raise ConfigError(file, problems)
    return settings


def lint(path: str | Path) -> Sequence[Problem]:
    """What is allowed and still probably not meant. The file must be one that `load` accepts."""
    return locate(path, checks.doubts(load(path)))


def locate(path: str | Path, problems: Iterable[tuple[tuple[str | int, ...], str]]) -> Sequence[Problem]:
    """Problems given as (path of the key, message), with their places in the file."""
    document = Document(_read(path), str(path))
    return [document.problem(where, message) for where, message in problems]


def content(path: str | Path) -> bytes:
    """The first bytes of a settings file, one more than a file may have; none when it cannot be read."""
    try:
        return _bytes(path)
    except OSError:
        return b""


def _bytes(path: str | Path) -> bytes:
    """Raises OSError, for what is no regular file too: a FIFO or a device would never end."""
    # Opening a FIFO for reading waits for a writer unless it must not block.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(MAX_FILE + 1)


def _read(path: str | Path) -> str:
    try:
        found = _bytes(path)
        if len(found) > MAX_FILE:
            raise ConfigError(str(path), [Problem("", f"the file is larger than {MAX_FILE} bytes")])
        return found.decode()
    except OSError as error:
        raise ConfigError(str(path), [Problem("", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), [Problem("", "is not UTF-8")]) from None


class Document:
    """YAML as plain values, with the place of each of them, from PyYAML's nodes.

    ruamel.yaml keeps places too and was tried (0.19, round-trip). A file of 4 MiB takes it 36 s of CPU and 600 MB of
    memory, against 8 s and 340 MB here. It stops at the first duplicate key, while all are told here; it expands merge
    keys, bounds neither nesting nor the values that aliases multiply, and ends `[[[[…` in a RecursionError after 15 s.
    yaml-where is built on it; libfyaml and rapidyaml give plain values no places.
    """

    def __init__(self, text: str, file: str) -> None:
        self._places: dict[tuple[str | int, ...], yaml.Mark] = {}
        self._problems: list[Problem] = []
        self._count = 0
        try:
            _check_depth(text)
            loader = yaml.CSafeLoader(text)
            try:
                node = loader.get_single_node()
                self.tree = {} if node is None else self._value(loader, node, ())
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._add((), mark, f"not YAML: {error.problem or error.context}")
        except (yaml.YAMLError, ValueError) as error:
            self._add((), None, f"not YAML: {error}".splitlines()[0])
        if not self._problems and not isinstance(self.tree, dict):
            self._add((), None, "the file must be a mapping of settings")
        if self._problems:
            raise ConfigError(file, self._problems)

    def problem(self, path: Sequence[str | int], message: str) -> Problem:
        """A problem at `path`, or at the nearest place above it that exists."""
        known = tuple(path)
        while known and known not in self._places:
            known = known[:-1]
        mark = self._places.get(known)
        text = ".".join(str(part) for part in path if part != "[key]")
        return Problem(text, message) if mark is None else Problem(text, message, mark.line + 1, mark.column + 1)

    def _add(self, path: tuple[str | int, ...], mark: yaml.Mark | None, message: str) -> None:
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        self._problems.append(Problem(".".join(map(str, path)), message, line, column))

    def _value(self, loader: yaml.CSafeLoader, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        self._count += 1
        if self._count > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} values")
        if len(path) > MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS:
            self._add(path, node.start_mark, "tags (!) are not supported")
        self._places.setdefault(path, node.start_mark)
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
                self._add((*path, key), key_node.start_mark, "this key was given before")
            else:
                result[key] = self._value(loader, value_node, (*path, key))
                self._places[(*path, key)] = key_node.start_mark
        return result


def _key(loader: yaml.CSafeLoader, node: yaml.Node) -> Any:
    """A key; None when it is no scalar."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    return node.value if node.tag in (_BOOL, _MERGE) else loader.construct_object(node)


def _scalar(loader: yaml.CSafeLoader, node: yaml.Node) -> Any:
    """A plain value. Only true and false are booleans, as in YAML 1.2: `off` is a word, and may be a name."""
    word = node.tag == _BOOL and node.value.lower() not in ("true", "false")
    return node.value if word else loader.construct_object(node)


def _check_depth(text: str) -> None:
    """Raise before PyYAML is given something nested too deep: its recursion is in C and ends the process."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=event.start_mark)  # type: ignore[arg-type]
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _path(error: Any) -> Sequence[str | int]:
    """The keys that lead to what an error is about. Among several kinds of guardrails, pydantic adds the kind."""
    path = list(error["loc"])
    if path[:1] == ["guardrails"] and len(guardrails.kinds()) > 1:
        del path[2:3]
    return [*path, "kind"] if error["type"].startswith("union_tag") else path


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such key"
    if error["type"] in ("missing", "union_tag_not_found"):
        return "this key is required"
    if error["type"] == "union_tag_invalid":
        kinds = sorted(error["ctx"]["expected_tags"].replace("'", "").split(", "))
        return f"there is no kind '{error['ctx']['tag']}'; there are {', '.join(kinds)}"
    message: str = error["msg"].removeprefix("Value error, ")
    return message[0].lower() + message[1:]
