"""Providers, a file each: a provider is a value, and no other code names a provider.

To add a provider, copy a file here: its module name is the `kind` in the filter YAML, its `PROVIDER` describes it.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    Field,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_validator,
)

from extproc.upstream.providers._capacity import CapacitySettings as CapacitySettings
from extproc.upstream.providers._pool import PoolSettings as PoolSettings
from extproc.upstream.providers._pool import ServeTLSSettings as ServeTLSSettings
from extproc.words.dialect import BatchLimits
from extproc.words.urls import check_url
from extproc.words.values import Duration, Pattern, Patterns, PositiveDuration, Secret, SecretRef, Section, meant


@dataclass(slots=True, frozen=True)
class Credential:
    """The header that carries the provider's key, and the text before the key in that header."""

    header: str = "authorization"
    prefix: str = "Bearer "


_HOST = re.compile(r"[a-z0-9._:{}%-]+")
"""Characters of a host's name or address, and of setting names in braces."""
_PLACES = ("region", "project", "account", "api_version")
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]

ClientHeader = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{1,62}\*?$")]
_GATEWAYS = ("host", "authorization", "x-api-key", "api-key", "x-goog-api-key", "content-length", "transfer-encoding")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
"""Characters that no header value may have: with them Envoy would answer 500 itself."""
_RESERVED = ("x-extproc-", "x-envoy-", "x-ai-")

Adapt = Callable[[str, str, bool, str, dict[str, Any]], tuple[str, dict[str, Any]]]
"""Adapts a request to a provider that differs from its API: (dialect, model, streamed, the API's path, body) to (path
after base_url, body).
"""


Adapts = Callable[[Mapping[str, Any], Collection[str]], bool]
"""True if `Adapt` changes a request, given its body and its needs (`Ask.needs`)."""


@dataclass(slots=True, frozen=True)
class Provider:
    """A kind of provider: its address, credential and APIs.

    `gen_ai_name` is OpenTelemetry's `gen_ai.provider.name`. `base_url` ends where the API's own path begins and
    replaces `/v1`. `dialects` are the APIs that the provider serves, by the names of modules in `extproc.dialects`, the
    preferred target of translations first. `models` gives patterns of the models that speak a dialect, if not all
    models do.

    `more` lists its differences from its API, for `words.dialect.Destination`.

    `unwrap` names the dialects whose streamed answers come inside Amazon's binary events, each with the function that
    takes the event out.

    `base_url` and `query` may contain names in braces, such as {region}: required fields of ProviderSettings.
    """

    gen_ai_name: str
    source: str  # URL of the provider's documentation
    dialects: tuple[str, ...]
    example: tuple[str, str]  # an entry of `providers`, and the name of one of its models
    base_url: str | None = None  # None: the settings must give one
    base_path: str = ""  # default path of a base_url without one
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    no_urls: tuple[str, ...] = ()  # dialects in which it accepts images and files as data, and not by URL
    in_body: Mapping[str, str] = field(
        default_factory=dict
    )  # client header with a list -> field of the body for it, in requests of the same dialect that lack the field
    batches: Mapping[str, BatchLimits] = field(
        default_factory=dict
    )  # limits of a batch, by patterns of models: the first match counts
    prefers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # API -> models that prefer it
    adapt: Adapt | None = None
    adapts: Adapts | None = None  # whether `adapt` changes a request; None: it changes all
    unwrap: Mapping[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)  # headers of every request
    query: Mapping[str, str] = field(default_factory=dict)  # query parameters of every request
    cache_keys: tuple[str, ...] = ()  # dialects whose `cache_key` it accepts
    client_headers: tuple[str, ...] = ()  # clients' headers that it gets; `x-*` stands for all that begin with x-
    client_query: tuple[str, ...] = ()  # clients' query parameters that it gets
    signed_for: str | None = None  # the AWS service that requests without a key are signed for
    credential: Credential = field(default_factory=Credential)
    key_required: bool = True
    tokens: str | None = None  # issuer of short-lived tokens that it accepts in place of a key: google, azure
    catalogue: str | None = None  # the provider's name in the catalogue of models
    tells_cost: bool = False  # the usage in its answers has their cost

    def speaks(self, model: str, dialect: str) -> bool:
        """True when a model of the provider speaks a dialect."""
        if dialect not in self.dialects:
            return False
        patterns = self.models.get(dialect)
        return patterns is None or Patterns(patterns)(model)

    def batch(self, model: str) -> BatchLimits | None:
        """The provider's limits of one request for embeddings by a model; None without limits."""
        return next((found for pattern, found in self.batches.items() if Pattern(pattern)(model)), None)

    def preferred(self, model: str) -> tuple[str, ...]:
        """The APIs to translate into for a model, the best first."""
        first = [dialect for dialect, patterns in self.prefers.items() if Patterns(patterns)(model)]
        return tuple(dict.fromkeys([*first, *self.dialects]))


HostedTools = Literal["refuse", "drop"]


class OutlierDetection(Section):
    """Failures in a row that make a model cool down, or the whole provider where it cannot be reached. Of a name with
    several hosts Envoy ejects those that cannot be reached, never the last one.
    """

    consecutive_5xx: int = Field(
        5,
        ge=1,
        le=1_000_000,
        description="Failures in a row before a cool-down or an ejection: 5xx, no answer or a broken one for a model; "
        "failed connections for a provider and for a host.",
    )
    interval: PositiveDuration = Field(
        5.0,
        description="Time between two requests that test a target after its cool-down, and between two looks of Envoy "
        "at the hosts that it ejected.",
    )
    base_ejection_time: PositiveDuration = Field(
        15.0,
        description="Time of the first cool-down or ejection. The second in a row takes twice as long, and so on; a "
        "cool-down takes `cool_down.longest` at most.",
    )


class CoolDownSettings(Section):
    """Pauses of a model. A model that cools down is skipped while another target is left."""

    default: Duration = Field(1.0, description="Pause of a model after a 429 without `Retry-After`. `0s` turns it off.")
    longest: Duration = Field(
        300.0, description="Longest pause of a model, whatever `Retry-After` asks for and however often it failed."
    )


METADATA = Secret("metadata", "")
"""Stands for the metadata server of a cloud's machine, in place of a reference to a secret."""


def _or_metadata(value: object, reference: ValidatorFunctionWrapHandler) -> Secret:
    if value in ("metadata", METADATA):
        return METADATA
    found: Secret = reference(value)
    return found


ServiceAccount = Annotated[
    SecretRef,
    WrapValidator(_or_metadata),
    WithJsonSchema(
        {"type": "string", "pattern": "^(?:metadata|(env|file):.+)$", "examples": ["file:/run/secrets/google.json"]}
    ),
]


class AzureCredentials(Section):
    """An application of Microsoft Entra ID, with a client secret or a workload identity, or the managed identity of a
    machine of Azure.
    """

    tenant: Identifier | None = Field(
        None, description="Tenant of the Entra application: its id or domain. A managed identity has none here."
    )
    client_id: Identifier | None = Field(
        None,
        description="Client id of the Entra application, or of a user-assigned managed identity. Without it a managed "
        "identity is the one that the system assigned.",
    )
    managed_identity: bool = Field(
        False,
        description="Use the managed identity of this machine: of a VM or AKS node by its metadata server, of App "
        "Service and Container Apps by the address in `IDENTITY_ENDPOINT`.",
    )
    client_secret: SecretRef | None = Field(
        None, description="Client secret of the Entra application. Give this or `federated_token`."
    )
    federated_token: SecretRef | None = Field(
        None,
        description="Token of a Kubernetes workload identity, as `file:/path`. Give this or `client_secret`.",
    )
    scope: str = Field(
        "https://cognitiveservices.azure.com/.default",
        description="Scope of the Entra tokens. Change it for another Azure cloud.",
    )

    @model_validator(mode="after")
    def _one(self) -> AzureCredentials:
        if (self.client_secret is not None) + (self.federated_token is not None) + self.managed_identity != 1:
            raise ValueError("give client_secret, federated_token or managed_identity, one of them")
        if self.managed_identity and self.tenant is not None:
            raise ValueError("a managed identity has its tenant already: leave tenant out")
        if not self.managed_identity and None in (self.tenant, self.client_id):
            raise ValueError("an Entra application needs tenant and client_id")
        return self


class Credentials(Section):
    """Credentials that a cloud's short-lived tokens are requested with, in place of `api_key`."""

    google: ServiceAccount | None = Field(
        None,
        description="Source of Google Cloud tokens: the key file of a service account, or the file of an "
        "`external_account`, as `file:/path`, or `metadata` for the metadata server of a Google machine.",
    )
    azure: AzureCredentials | None = Field(None, description="Entra application that requests Azure tokens.")

    @model_validator(mode="after")
    def _one(self) -> Credentials:
        if (self.google is None) == (self.azure is None):
            raise ValueError("give google or azure, one of them")
        return self

    @property
    def cloud(self) -> str:
        return "google" if self.azure is None else "azure"

    @property
    def reference(self) -> Secret:
        if self.azure is None:
            assert self.google is not None
            return self.google
        return self.azure.client_secret or self.azure.federated_token or METADATA

    def read(self) -> str | None:
        """The secret that tokens are requested with; None when it is missing."""
        return "metadata" if self.reference == METADATA else self.reference.read()


class ProviderKeySettings(Section):
    """One of several keys of a provider, with limits and health of its own."""

    api_key: SecretRef = Field(description="Key of the gateway at the provider, as `env:NAME` or `file:/path`.")
    weight: int = Field(
        1,
        ge=0,
        le=1_000_000,
        description="Share of the requests. `0`: only requests that failed with the other keys.",
    )
    max_requests: int | None = Field(
        None, ge=1, le=1_000_000, description="Most requests in flight with the key. Default: the provider's."
    )
    disabled: bool = Field(False, description="Stop new requests with the key. Takes effect without a restart.")


class ProviderSettings(Section):
    """A provider: a service that runs models. Envoy gets one cluster for it, with the provider's name."""

    kind: str = Field(description="Kind of the provider, for example `openai`, `anthropic` or `aws_bedrock`.")
    base_url: str | None = Field(
        None,
        description="Address of the provider's API with its version, `https://host/v1`. Default: the address of the "
        "kind. Set it for a service of your own.",
    )
    api_key: SecretRef | None = Field(
        None, description="Key of the gateway at the provider, as `env:NAME` or `file:/path`."
    )
    keys: Sequence[ProviderKeySettings] = Field(
        (),
        max_length=16,
        description="Several keys in place of `api_key`, at most 16. A request that fails with one is sent with "
        "another. Reports name the second key's requests `<provider>~2`, and so on.",
    )
    credentials: Credentials | None = Field(
        None, description="Credentials for a cloud's short-lived tokens, in place of `api_key`."
    )
    headers: Mapping[str, str] = Field(
        default_factory=dict, description="Headers that are added to each request to the provider."
    )
    client_headers: Sequence[ClientHeader] = Field(
        (),
        max_length=32,
        description="Further headers of clients that the provider gets, for example `x-session-id`, or `x-acme-*` for "
        "all with that beginning. At most 32. Other headers of clients stay at the gateway, except those that the kind "
        "of the provider takes.",
    )
    timeout: PositiveDuration = Field(
        600.0, description="Longest wait for an answer of the provider to begin, for each try."
    )
    connect_timeout: PositiveDuration = Field(5.0, description="Longest wait for a new connection to the provider.")
    native_apis: Sequence[Literal["openai_responses", "anthropic_messages", "anthropic_count_tokens"]] = Field(
        (),
        max_length=3,
        description="Further APIs that this server has, beside those of its kind: `openai_responses`, "
        "`anthropic_messages`, `anthropic_count_tokens`. Requests of these APIs are then sent as they are, not "
        "translated. For example vLLM has them in late versions.",
    )
    max_requests: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Most requests in flight at the provider. A further one fails over. Lower it for a small server.",
    )
    max_connections: int = Field(1024, ge=1, le=1_000_000, description="Most connections of Envoy to the provider.")
    pool: PoolSettings | None = Field(
        None, description="Several servers behind `base_url`, chosen by the gateway. Default: one address."
    )
    capacity: CapacitySettings | None = Field(
        None, description="Own hardware, paid by the hour: the price of its models, and what of it is idle."
    )
    outlier_detection: OutlierDetection = OutlierDetection()
    cool_down: CoolDownSettings = CoolDownSettings()
    region: Identifier | None = Field(
        None,
        description="Region of the provider, for example `us-east-1`, for `require`. Kinds whose address has one need "
        "it.",
    )
    retention: Duration | None = Field(
        None,
        description="Time for which the provider keeps prompts and answers by your contract, for `require`. `0s`: not "
        "at all.",
    )
    project: Identifier | None = Field(None, description="Project of Google Cloud. The kind `gcp_vertex_ai` needs it.")
    account: Identifier | None = Field(None, description="Account id of Cloudflare. The kind `cloudflare` needs it.")
    api_version: Identifier | None = Field(
        None, description="Version of Azure's API, a date. The kind `azure_openai_dated` needs it."
    )
    tls_ca: str | None = Field(
        None,
        description="PEM file of certificate authorities that verify the provider. Default: the system's. Set it for a "
        "private certificate.",
    )
    hosted_tools: HostedTools = Field(
        "refuse",
        description="Tools that a client offers and that only the provider of its own API runs (web search and the "
        "like), where this provider speaks another API: `refuse` skips its models, `drop` leaves the tools out and "
        "names them in `x-ai-ignored`. Codex offers a web search by default.",
    )
    disabled: bool = Field(
        False, description="Stop new requests to the provider. Its models are skipped. Takes effect without a restart."
    )

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in kinds():
            hint = meant(value, kinds())
            known = f"{f'{hint} There' if hint else 'there'} are {', '.join(sorted(kinds()))}"
            raise ValueError(f"unknown kind of provider {value!r}; {known}")
        return value

    @field_validator("base_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = check_url(value, "base_url")
        if not _HOST.fullmatch(url.hostname or ""):
            raise ValueError(f"{url.hostname!r} is no host: write the address of the service in place of a placeholder")
        return value.rstrip("/")

    @field_validator("client_headers")
    @classmethod
    def _passed(cls, value: Sequence[str]) -> Sequence[str]:
        for name in value:
            if name.removesuffix("*") in _GATEWAYS or name.startswith(_RESERVED):
                raise ValueError(f"the header {name!r} is the gateway's own, and never a client's")
        return value

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in value.items():
            token = name.replace("-", "").replace("_", "")
            if not token.isalnum() or not name.isascii() or name != name.lower() or not text.isprintable():
                raise ValueError(f"{name!r}: a header has a lower-case name and a printable value")
            if name in _GATEWAYS:
                raise ValueError(f"the gateway sets the header {name!r}; use base_url or api_key")
            if name.startswith(_RESERVED):
                raise ValueError(f"the header {name!r} is reserved for the gateway and Envoy")
        return value

    @model_validator(mode="after")
    def _reachable(self) -> ProviderSettings:
        if self.base_url is None and self.provider.base_url is None:
            raise ValueError(f"kind {self.kind} needs a base_url")
        templates = [self.base_url or self.provider.base_url or "", *self.provider.query.values()]
        for name in _PLACES:
            wanted = any(f"{{{name}}}" in template for template in templates)
            if wanted and getattr(self, name) is None:
                raise ValueError(f"kind {self.kind} needs {name}")
        return self

    @model_validator(mode="after")
    def _counted(self) -> ProviderSettings:
        if self.capacity is not None and self.capacity.replicas == "scrape" and self.pool is None:
            raise ValueError("capacity: give the number of replicas, or a pool whose endpoints are counted")
        return self

    @model_validator(mode="after")
    def _one_credential(self) -> ProviderSettings:
        if self.keys and (self.api_key is not None or self.credentials is not None):
            raise ValueError("give keys, or api_key, or credentials")
        if self.keys and not any(key.weight for key in self.keys):
            raise ValueError("at least one of the keys needs a weight above 0")
        if self.credentials is None:
            return self
        if self.api_key is not None:
            raise ValueError("give api_key or credentials, not both")
        if self.provider.tokens != self.credentials.cloud and self.base_url is None:
            raise ValueError(
                f"kind {self.kind} takes no tokens of {self.credentials.cloud}; give base_url to send them elsewhere"
            )
        return self

    @property
    def provider(self) -> Provider:
        return kinds()[self.kind]

    @property
    def one_path(self) -> bool:
        """True if `base_url` is the address of every request, not a prefix of it."""
        return False

    @property
    def passed(self) -> tuple[str, ...]:
        """Headers of clients that the provider gets."""
        return (*self.provider.client_headers, *self.client_headers)

    @property
    def url(self) -> SplitResult:
        """The address: the setting, else the default of the kind."""
        url = urlsplit(self._filled(self.base_url or self.provider.base_url or ""))
        return url if url.path else url._replace(path=self.provider.base_path)

    @property
    def query(self) -> Mapping[str, str]:
        """Parameters for the query of every request."""
        return {name: self._filled(value) for name, value in self.provider.query.items()}

    def _filled(self, template: str) -> str:
        for name in _PLACES:
            template = template.replace(f"{{{name}}}", getattr(self, name) or "")
        return template

    @property
    def credential(self) -> Credential | None:
        """The header in which Envoy sends the secret; None if it sends none. Tokens use the same header at all
        providers.
        """
        if self.credentials is not None:
            return Credential()
        return None if self.api_key is None else self.provider.credential

    @property
    def reference(self) -> Secret | None:
        """The reference of the key, or of the secret that tokens are requested with."""
        return self.api_key if self.credentials is None else self.credentials.reference

    def read_secret(self) -> str | None:
        """The secret at `reference`; None when it is missing, or a key that no header can hold."""
        if self.reference is None:
            return None
        if self.credentials is not None:
            return self.credentials.read()
        found = self.reference.read()
        return None if found is not None and _CONTROL.search(found) else found

    @property
    def lack(self) -> str:
        """The problem of the provider's key, or of the secret for its tokens; empty when there is none."""
        if self.reference is None:
            needed = self.provider.key_required and self.provider.signed_for is None and self.base_url is None
            return "is not set" if needed else ""
        if self.read_secret() is not None:
            return ""
        return "is not set" if self.reference.read() is None else "has several lines, or control characters"


_MARK = "~"  # no name in the settings has it


def each_key(providers: Mapping[str, ProviderSettings]) -> Mapping[str, ProviderSettings]:
    """The providers, with one for each key: the provider itself has the first of its `keys`, `<name>~2` the second."""
    found: dict[str, ProviderSettings] = {}
    for name, provider in providers.items():
        found[name] = provider
        for key, settings in zip(names_of_keys(name, provider), provider.keys, strict=True):
            found[key] = provider.model_copy(
                update={
                    "api_key": settings.api_key,
                    "max_requests": settings.max_requests or provider.max_requests,
                    "disabled": provider.disabled or settings.disabled,
                    "keys": provider.keys if key == name else (),
                }
            )
    return found


def names_of_keys(name: str, provider: ProviderSettings) -> Sequence[str]:
    """Names of a provider's keys, in their order; empty if it has one key."""
    return [f"{name}{_MARK}{number}" if number > 1 else name for number in range(1, len(provider.keys) + 1)]


def without_key(name: str) -> str:
    """The provider's name in the settings."""
    return name.partition(_MARK)[0]


@cache
def kinds() -> Mapping[str, Provider]:
    """All providers in this package, by the names of their modules."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    return {name: importlib.import_module(f"{__name__}.{name}").PROVIDER for name in names}
