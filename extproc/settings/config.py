"""The filter YAML: one file, one schema, with every default.

`load` reads it, or reports every error at once with its place: `file:line:column: path: message`.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from extproc import guardrails
from extproc.access.auth import AttributionSettings, AuthSettings, ConsumerSettings, GroupSettings, TeamSettings
from extproc.cache.settings import CacheSettings
from extproc.guardrails import Around, RemoteSettings
from extproc.money.budgets import BudgetSettings
from extproc.money.texts.settings import RecordSettings
from extproc.routing.catalog import Before
from extproc.routing.settings import ModelSettings, VirtualModelSettings
from extproc.settings import checks
from extproc.settings.audit import AuditSettings
from extproc.settings.document import MAX_TOLD, ConfigError, Document, Found, SettingsProblem
from extproc.settings.errors import explain
from extproc.settings.include import IncludeSettings, Whole, join, split
from extproc.settings.limits import LimitsSettings
from extproc.settings.listener import AttachSettings, ListenerSettings, Port
from extproc.settings.processor import ProcessorSettings
from extproc.settings.signon import OIDCSettings
from extproc.settings.stores import StoresSettings
from extproc.tools.brake.settings import BrakeSettings
from extproc.tools.mcp.settings import MCPSettings
from extproc.upstream.prices import DatedPriceSettings
from extproc.upstream.providers import ProviderSettings, each_key
from extproc.wire.transport import workers
from extproc.words.urls import host_port
from extproc.words.values import ModelName, Name, PositiveDuration, SecretRef, Section, Size, is_loopback, show_size

if TYPE_CHECKING:
    GuardrailEntry = guardrails.GuardrailSettings
else:
    GuardrailEntry = guardrails.OneKind

MAX_FILE = 4 << 20  # most bytes of the filter YAML
Option = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}=[A-Za-z0-9_.:/-]{1,64}$")]
Factor = Annotated[float, Field(ge=0.01, le=100)]
Semconv = Literal["latest", "v1.41"]


class StatusSettings(Section):
    """The HTTP server for probes and scrapers: `/healthz`, `/readyz` and `/metrics`."""

    address: str = Field(
        "0.0.0.0",  # noqa: S104 - probes and scrapers come from outside the pod
        description="Address of the status server. `127.0.0.1` keeps metrics on this machine.",
    )
    port: Port = Field(9090, description="Port of the status server.")
    stalled_after: PositiveDuration = Field(
        30.0,
        ge=1,
        description="Time for which the event loop may stand still before `/healthz` fails, at least `1s`. Kubernetes "
        "then restarts the processor. The event loop serves all traffic.",
    )


class AdminSettings(Section):
    """The HTTP server of the console and the admin API: usage, budgets, grants, recent exchanges."""

    address: str = Field(
        "127.0.0.1", description="Address of the admin server. An address other than loopback needs a `token`."
    )
    port: Port = Field(9091, description="Port of the admin server.")
    token: SecretRef | None = Field(
        None,
        description="Token that each request to the admin API sends as `Authorization: Bearer …`, as `env:NAME` or "
        "`file:/path`. Required when the address is not loopback.",
    )
    oidc: OIDCSettings | None = Field(
        None, description="Sign-on of operators with OpenID Connect, with roles. Beside `token`, or in its place."
    )
    failed_authentications: int = Field(
        10,
        ge=1,
        le=100_000,
        description="Wrong tokens that one address may send in a minute, 1 to 100000. Beyond it the address gets 429 "
        "for the rest of that minute, also with the right token; other addresses and sessions of `oidc` are served. "
        "Raise it where many operators share the address of a proxy.",
    )
    apply_settings: bool = Field(
        False,
        description="Let operators of the role `admin` write changes into the settings file from the console. Without "
        "it the console shows a change, its verdict and its difference, to be copied.",
    )
    audit_keep: PositiveDuration = Field(
        366 * 86400.0,
        le=3660 * 86400,
        description="Age at which entries of the audit trail are deleted.",
    )

    @model_validator(mode="after")
    def _guarded(self) -> AdminSettings:
        if self.token is None and self.oidc is None and not is_loopback(self.address):
            raise ValueError("an address other than loopback needs a token: env:NAME or file:/path, or oidc")
        return self


class UsageSettings(Section):
    """Counting of usage, and its display to clients."""

    cost_in_response: bool = Field(
        False,
        description="Add `cost`, in USD, to the usage in answers of every API. Answers of unknown price have none.",
    )


class TracesSettings(Section):
    """Spans of requests, tries and exchanges for an OpenTelemetry collector."""

    otlp: Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\[\]:_-]+:\d{1,5}$")] = Field(
        description="Address of the collector's OTLP receiver for gRPC, `http://host:4317`; `https` for TLS."
    )
    sample: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the traces beginning here that are recorded, `0` to `1`. A request with a `traceparent` "
        "keeps the decision of its caller.",
    )
    link: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]*\{id\}[!-~]*$", max_length=2048)] | None = Field(
        None,
        description="Address of a request's trace, which the console links: `{id}` stands for the value of the span's "
        "attribute `extproc.id`.",
    )


class PromptsSettings(Section):
    """Prompts as OpenTelemetry events, as they leave for the provider: behind the guardrails that mask. Text that no
    guardrail masks is sent unchanged.
    """

    otlp: Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\[\]:_-]+:\d{1,5}$")] = Field(
        description="Address of the collector's OTLP receiver for HTTP, `http://host:4318`; `https` for TLS."
    )
    token: SecretRef | None = Field(
        None, description="Token that the collector gets as `Authorization: Bearer …`, as `env:NAME` or `file:/path`."
    )
    sample: float = Field(1.0, ge=0, le=1, description="Share of the requests whose prompt is sent, `0` to `1`.")
    longest: int = Field(
        16_384,
        ge=1,
        le=262_144,
        description="Most characters of one prompt that are sent, 1 to 262144. Of a body above 256 KiB none are.",
    )
    without: Sequence[Annotated[str, StringConstraints(min_length=1, max_length=512)]] = Field(
        (), max_length=1000, description="Patterns of consumers whose prompts are never sent, for example `hr-*`."
    )


class TelemetrySettings(Section):
    """Logs and traces."""

    access_log: Literal["stdout", "off"] = Field(
        "stdout",
        description="Log of exchanges. `stdout`: one JSON line for each exchange on standard output. `off`: none.",
    )
    log_buffer: Size = Field(
        4 << 20,
        ge=64 << 10,
        le=256 << 20,
        description="Size of the log lines that may wait for a slow reader of standard output, `64KiB` to `256MiB`. "
        "Further lines are dropped and counted.",
    )
    traces: TracesSettings | None = Field(None, description="Traces of requests. Default: none.")
    semconv: Semconv = Field(
        "latest",
        description="Version of OpenTelemetry's conventions for generative AI that names metrics and attributes of "
        "spans. `latest`: `gen_ai.client.inference.*`. `v1.41`: the names before it, such as "
        "`gen_ai.client.token.usage`.",
    )
    prompts: PromptsSettings | None = Field(
        None, description="Prompts for a collector of OpenTelemetry logs. Default: no prompt is written anywhere."
    )


def _usual_workers(value: Any) -> Any:
    """The default number of workers: one if the processor's address or a store can serve only one process."""
    if not isinstance(value, dict):
        return value
    processor, stores = value.get("processor") or {}, value.get("stores") or {}
    if not isinstance(processor, dict) or not isinstance(stores, dict) or "workers" in processor:
        return value
    alone = "address" in processor or "memory:" in (stores.get("counters"), stores.get("ledger"))
    number = 1 if alone else workers.usual()
    return value if number == 1 else {**value, "processor": {**processor, "workers": number}}


class Settings(Section):
    """The filter YAML, version 1."""

    _workers = model_validator(mode="before")(_usual_workers)

    include: Annotated[Sequence[IncludeSettings], Field(max_length=1000)] = Field(
        (), description="Further files, each with the keys that it may set: the settings of teams. Default: none."
    )
    listener: ListenerSettings = ListenerSettings()
    attach: AttachSettings = AttachSettings()
    status: StatusSettings = StatusSettings()
    admin: AdminSettings = AdminSettings()
    processor: ProcessorSettings = ProcessorSettings()
    providers: Annotated[Mapping[Name, ProviderSettings], AfterValidator(each_key)] = Field(
        default_factory=dict,
        description="Services that run models, by a name of your choice. Envoy gets one cluster for each. Required, "
        "unless the gateway serves `mcp` alone.",
    )
    models: Mapping[ModelName, ModelSettings] = Field(
        default_factory=dict,
        description="Names that clients use, each with the provider that serves it. A name with `*` stands for "
        "many models: with `openai/*`, the part after `openai/` is the model's name at the provider.",
    )
    virtual_models: Mapping[ModelName, VirtualModelSettings] = Field(
        default_factory=dict, description="Names that stand for several targets, for failover, canaries or routing."
    )
    prices: Sequence[DatedPriceSettings] = Field(
        (),
        description="Prices that apply from a day on. They win over the `price` of a model and the bundled catalogue. "
        "Of several that match, the latest that has begun applies.",
    )
    surcharges: Mapping[Option, Factor] = Field(
        {"inference_geo=us": 1.1},
        description="Factors to the price of a model, by an option of the request that changes it: "
        "`{service_tier=scale: 1.5}`. Where a budget in USD applies, an option that neither the catalogue nor this "
        "setting has a price for is taken out of the request; `x-ai-ignored` names it.",
    )
    unknown_price: Literal["warn", "refuse"] = Field(
        "warn",
        description="Treatment of a target of unknown price where a budget in USD applies. `warn`: its requests cost "
        "nothing in budgets. `refuse`: the target is skipped.",
    )
    named_models: Literal["refuse", "leave_out"] = Field(
        "refuse",
        description="Treatment of a model that a request names beside its own (fallbacks, advisors, models of tools) "
        "and that its consumer may not use. `refuse`: 403. `leave_out`: the item of a list that names it is taken out "
        "of the request, or the field; `x-ai-ignored` has `tools[]` or `fallbacks`. Batches are refused.",
    )
    auth: AuthSettings = AuthSettings()
    consumers: Sequence[ConsumerSettings] = Field(
        (), description="Persons, applications and agents that send requests, with their credentials and grants."
    )
    teams: Mapping[Name, TeamSettings] = Field(
        default_factory=dict, description="Teams of consumers, by name. A team limits the models of its members."
    )
    groups: Mapping[Name, GroupSettings] = Field(
        default_factory=dict, description="Groups of consumers, by name. A group grants models to its members."
    )
    attribution: AttributionSettings = AttributionSettings()
    budgets: Sequence[BudgetSettings] = Field((), description="Limits on requests, tokens, USD or concurrency.")
    guardrails: Sequence[GuardrailEntry] = Field((), description="Checks of the text in requests and answers.")
    brake: BrakeSettings | None = Field(None, description="A brake for agents that loop. Default: none.")
    record: RecordSettings | None = Field(
        None, description="Texts of requests and answers that are kept, encrypted. Default: none."
    )
    cache: CacheSettings = CacheSettings()
    mcp: MCPSettings | None = Field(None, description="The MCP gateway. Default: none.")
    foreign_objects: Literal["refuse", "allow"] | Annotated[Sequence[str], Field(max_length=1000)] = Field(
        "refuse",
        description="Requests that name an object by an id which the gateway did not give out: a response, file, "
        "container, vector store, prompt, cache. `refuse`: 400 `foreign_object`, where a provider of the model has a "
        "key. `allow`: they pass, so a consumer that knows another's id can use it. A list of ids with `*`, such as "
        "`[pmpt_*, 'gs://shared/*']`: these pass.",
    )
    usage: UsageSettings = UsageSettings()
    stores: StoresSettings = StoresSettings()
    limits: LimitsSettings = LimitsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    audit: AuditSettings = AuditSettings()

    _before: Before | None = PrivateAttr(None)

    @property
    def before(self) -> Before | None:
        """The earlier names and grants, used while providers wait for Envoy; None when no provider waits."""
        return self._before

    def with_before(self, before: Before | None) -> Settings:
        """The same settings with another `before`."""
        found = self.model_copy()
        found._before = before  # noqa: SLF001 - its own
        return found

    @property
    def hops(self) -> Mapping[str, ProviderSettings]:
        """All destinations with a hop in Envoy: providers, and MCP servers in the form of providers."""
        return self.providers if self.mcp is None else {**self.providers, **self.mcp.hops}

    @property
    def asked_through_envoy(self) -> Sequence[str]:
        """The providers that guardrails ask through Envoy, which signs the requests."""
        asked = (entry.through_envoy(self.providers) for entry in self.guardrails if isinstance(entry, RemoteSettings))
        return sorted({name for name in asked if name})

    @property
    def longest_wait(self) -> float:
        """Longest time in seconds that a request waits for a person, see `on_exceed: ask` and `mcp.approvals`, or for
        room in a pool.
        """
        approves = self.mcp is not None and any(policy.approve is not None for policy in self.mcp.tools.values())
        calls = self.mcp.approvals.wait if self.mcp is not None and approves else 0.0
        pools = [max(each.pool.wait, each.pool.spill) for each in self.providers.values() if each.pool is not None]
        return max([entry.wait for entry in self.budgets] + pools + [calls])

    @property
    def quarantines(self) -> bool:
        """True where results of tools may be put in quarantine."""
        return any(entry.kind == "quarantine" for entry in self.guardrails)

    @property
    def around_guardrails(self) -> Around:
        """The settings for guardrails that ask a service."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.listener.address, self.listener.address)  # noqa: S104
        scheme = "http" if self.listener.tls is None else "https"
        keys = {
            consumer.name: secret
            for consumer in self.consumers
            for key in reversed(consumer.keys)
            if (secret := key.secret) is not None and not key.disabled
        }
        models = (*self.models, *self.virtual_models)
        return Around(self.providers, f"{scheme}://{host_port(host, self.listener.port)}", keys, models)


def load(path: str | Path, main: bytes | None = None) -> Settings:
    """Read the filter YAML; `main` stands for the file's own content. Raises ConfigError with its errors."""
    return parse(text(path, main), str(path))


def parse(yaml: str, file: str = "gateway.yaml") -> Settings:
    """The settings in `yaml`. Raises ConfigError with its errors."""
    return parse_tree(yaml, file)[1]


def parse_tree(yaml: str, file: str) -> tuple[Mapping[str, Any], Settings]:
    """The plain values in `yaml`, and the settings. Raises ConfigError with its errors."""
    document = _document(yaml, file)
    if "model_list" in document.tree and "providers" not in document.tree:
        hint = f"this is a configuration of LiteLLM; convert it with: extproc import litellm {shlex.quote(file)}"
        raise ConfigError(file, [document.problem(("model_list",), hint)])
    try:
        settings = Settings.model_validate(document.tree)
    except ValidationError as error:
        found = [document.problem(*explain(item, Settings)) for item in error.errors()[: MAX_TOLD + 1]]
        raise ConfigError(file, found) from None
    contradictions = islice(checks.contradictions(settings), MAX_TOLD + 1)
    if problems := [document.problem(path, message) for path, message in contradictions]:
        raise ConfigError(file, problems)
    return document.tree, settings


def _document(yaml: str, file: str) -> Document | Whole:
    """The values in the text of a settings file, with those of the files that it includes. Raises ConfigError."""
    main, parts = split(yaml)
    document = Document(main, file)
    return Whole(document, parts, file) if parts else document


def lint(path: str | Path, main: bytes | None = None) -> Sequence[SettingsProblem]:
    """The lints of a file that `load` accepts: allowed, and probably not meant."""
    return locate(path, checks.doubts(load(path, main)), main)


def locate(path: str | Path, problems: Iterable[Found], main: bytes | None = None) -> Sequence[SettingsProblem]:
    """Problems, given as (path of the key, message), with their places in the file."""
    document = _document(text(path, main), str(path))
    return [document.problem(where, message) for where, message in problems]


def content(path: str | Path) -> bytes:
    """The first bytes of a settings file with the files that it includes, up to one more than allowed; empty when it
    cannot be read.
    """
    try:
        return join(_bytes(path), Path(path), _bytes)[: MAX_FILE + 1]
    except OSError:
        return b""


def _bytes(path: str | Path) -> bytes:
    """The bytes of a regular file. Raises OSError also for what is no path, and for a FIFO or a device, which would
    never end.
    """
    # Open without blocking, because opening a FIFO waits for a writer. Without a file object this check, made once a
    # second, takes half as many system calls.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a NUL
        raise OSError(errno.EINVAL, "it is no path") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        data = b""
        step = min(status.st_size, MAX_FILE) + 1
        while len(data) <= MAX_FILE and (part := os.read(descriptor, min(step, MAX_FILE + 1 - len(data)))):
            data += part
        return data
    finally:
        os.close(descriptor)


def text(path: str | Path, main: bytes | None = None) -> str:
    """The text of a settings file, and of the files that it includes. `main` stands for the file's own content. Raises
    ConfigError when it cannot be read.
    """
    try:
        found = join(_bytes(path) if main is None else main, Path(path), _bytes)
        if len(found) > MAX_FILE:
            raise ConfigError(str(path), [SettingsProblem("", f"the file is larger than {show_size(MAX_FILE)}")])
        return found.decode()
    except FileNotFoundError:
        raise ConfigError(
            str(path), [SettingsProblem("", "there is no such file; `extproc init` writes one")]
        ) from None
    except OSError as error:
        raise ConfigError(str(path), [SettingsProblem("", f"the file cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), [SettingsProblem("", "the file is not UTF-8")]) from None
