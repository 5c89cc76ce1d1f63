"""`mcp:` of the filter YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from extproc.guardrails._arguments import Unreadable
from extproc.guardrails._rules import ArgumentRule, ArgumentsSettings
from extproc.tools.mcp.behalf_settings import MCPAuthSettings
from extproc.tools.mcp.profile_settings import MCPProfileSettings
from extproc.tools.sign_in.settings import SignInsSettings
from extproc.upstream.providers import Credential, Credentials, OutlierDetection, Provider, ProviderSettings
from extproc.words.urls import check_url
from extproc.words.values import (
    Duration,
    Name,
    Pattern,
    PositiveDuration,
    SecretRef,
    Section,
    Size,
    WebhookURL,
    is_loopback,
)

HOP = "mcp-"
"""Prefix of the name of a server's hop in Envoy, also in the access logs of its tries."""

_Header = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
_Origin = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\[\]:*-]{1,255}$")]
_Patterns = Sequence[Annotated[str, StringConstraints(min_length=1, max_length=512)]]
_OWN = ("host", "content-length", "transfer-encoding", "content-type", "accept", "cookie", "origin")
_OWN_STARTS = ("x-extproc-", "x-envoy-", "x-ai-", "mcp-")
_MOST_POLICIES = 20_000
_HOT: Mapping[str, Any] = {
    "disabled": False,
    "untrusted": False,
    "refresh": 60.0,
    "lists": "shared",
    "apps": None,
    "command": (),
}
"""Settings of a server that are not in Envoy's configuration."""
_CLIENTS = ("mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "mcp-param-*", "last-event-id")
"""Headers of the protocol, which the gateway sets for a server. A server gets no other header of a client."""


class _Derived(Section):
    """A section that caches values derived from it. A copy with changes derives them anew."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copy = super().model_copy(update=update, deep=deep)
        for name in copy.__dict__.keys() - type(self).model_fields.keys():
            del copy.__dict__[name]
        return copy


class _Hop(ProviderSettings):
    """A server in the form of a provider, for the code that leads requests to providers and keeps their keys."""

    @property
    def one_path(self) -> bool:
        return True

    @property
    def provider(self) -> Provider:
        header, _, prefix = self.kind.partition(" ")
        return Provider("mcp", "", (), ("", ""), client_headers=_CLIENTS, credential=Credential(header, prefix))


def _bare(url: str, name: str) -> str:
    """`url` without `/` at its end. Raises ValueError unless it is http(s) without user, query, fragment or escapes."""
    check_url(url, name, forbidden="%")
    return url.rstrip("/")


class MCPServerSettings(_Derived):
    """An MCP server, reached over Streamable HTTP. Envoy gets one cluster for it."""

    url: str = Field(description="Address of the server's MCP endpoint, for example `https://mcp.acme.com/mcp`.")
    token: SecretRef | None = Field(
        None, description="Credential of the gateway at the server, as `env:NAME` or `file:/path`. Default: none."
    )
    header: _Header = Field(
        "authorization",
        description="Header for the `token`: after `Bearer` in `authorization`, alone in any other header.",
    )
    credentials: Credentials | None = Field(
        None, description="Credentials for a cloud's short-lived tokens, in place of `token`."
    )
    auth: MCPAuthSettings | None = Field(
        None,
        description="Calls with a token of the user, in place of the gateway's `token`, which then serves for its own "
        "looks at the server's lists. The users are those of `auth.jwt`.",
    )
    headers: Mapping[_Header, str] = Field(
        default_factory=dict, max_length=32, description="Headers that are added to each request to the server."
    )
    command: Annotated[Sequence[str], Field(max_length=64)] = Field(
        (),
        description="Command that serves `url`, such as a bridge to a server on stdio. `extproc up` starts it and "
        "starts it again when it ends. Only for a `url` on a loopback address.",
    )
    timeout: PositiveDuration = Field(
        60.0,
        le=3600,
        description="Longest wait for an answer of the server to begin. A tool that works for longer has to stream.",
    )
    connect_timeout: PositiveDuration = Field(5.0, description="Longest wait for a new connection to the server.")
    max_requests: int = Field(
        256, ge=1, le=1_000_000, description="Most requests in flight at the server. A further one is refused."
    )
    max_connections: int = Field(1024, ge=1, le=1_000_000, description="Most connections of Envoy to the server.")
    outlier_detection: OutlierDetection = OutlierDetection()
    tls_ca: str | None = Field(
        None,
        description="PEM file of certificate authorities that verify the server. Default: the system's. Set it for a "
        "private certificate.",
    )
    refresh: PositiveDuration = Field(
        60.0,
        ge=1,
        le=3600,
        description="Longest time between two looks at the server's tools, prompts and resources, `1s` to `1h`. A "
        "server of the revision 2026-07-28 may ask for a shorter one, of `5s` at least.",
    )
    lists: Literal["shared", "session"] = Field(
        "shared",
        description="`shared`: the gateway reads the server's tools, prompts and resources for all clients. `session`: "
        "in each client's session, for servers whose lists depend on the session, its user or the client's abilities.",
    )
    untrusted: bool = Field(
        False, description="The server's results hold text of strangers: each of its tools counts as `untrusted`."
    )
    apps: Literal["show", "hide"] | None = Field(
        None,
        description="Apps of the server: web pages (`ui://`) that clients show beside a result. `hide`: they are not "
        "offered and not read, and tools do not name them. Default: `hide` for an `untrusted` server, else `show`.",
    )
    disabled: bool = Field(
        False, description="Stop new requests to the server and hide its tools. Takes effect without a restart."
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        return _bare(value, "url")

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, text in value.items():
            if name in _OWN or name.startswith(_OWN_STARTS):
                raise ValueError(f"the gateway sets the header {name!r}")
            if not text.isprintable():
                raise ValueError(f"{name!r}: a header has a printable value")
        return value

    @model_validator(mode="after")
    def _one_credential(self) -> MCPServerSettings:
        if self.token is not None and self.credentials is not None:
            raise ValueError("give token or credentials, not both")
        if self.auth is not None and (self.header != "authorization" or "authorization" in self.headers):
            raise ValueError("with auth the user's token is in the header authorization")
        if self.auth is not None and self.lists == "session":
            raise ValueError("auth needs lists: shared, because the gateway reads the lists with its own token")
        if self.command and not is_loopback(self.address.hostname or ""):
            raise ValueError("command is for a url on a loopback address")
        own = self.token is not None or self.credentials is not None
        if self.auth is not None and self.auth.without_user == "token" and not own:
            raise ValueError("without_user: token needs the server's own token")
        if self.header in _OWN or self.header.startswith(_OWN_STARTS) or self.header in self.headers:
            raise ValueError(f"the header {self.header!r} cannot carry the token: the gateway sets it otherwise")
        return self

    @property
    def shows_apps(self) -> bool:
        return (self.apps or ("hide" if self.untrusted else "show")) == "show"

    @property
    def address(self) -> SplitResult:
        return urlsplit(self.url)

    @cached_property
    def hop(self) -> ProviderSettings:
        """The server in the form of a provider: its cluster, credential, time-outs and limits."""
        bearer = self.credentials is not None or self.header == "authorization"
        return _Hop.model_construct(
            kind="authorization Bearer " if bearer else f"{self.header} ",
            base_url=self.url,
            api_key=self.token,
            credentials=self.credentials,
            headers=self.headers,
            client_headers=(),
            timeout=self.timeout,
            connect_timeout=self.connect_timeout,
            max_requests=self.max_requests,
            max_connections=self.max_connections,
            outlier_detection=self.outlier_detection,
            tls_ca=self.tls_ca,
            disabled=self.disabled,
        )


class ApproveSettings(Section):
    """The calls of a tool that wait for a person."""

    unless: ArgumentsSettings | None = Field(
        None,
        description="Rules for arguments, as those of the guardrail `tools`: `{/amount: {exclusive_maximum: 100}}`. A "
        "call that breaks one of them waits.",
    )
    tainted: bool = Field(False, description="Calls wait once an `untrusted` tool has answered in the same run.")

    @model_validator(mode="after")
    def _waits(self) -> ApproveSettings:
        if self.unless is None and not self.tainted:
            raise ValueError("give unless or tainted, or write approve: always")
        return self

    @cached_property
    def rules(self) -> Sequence[ArgumentRule]:
        return [ArgumentRule(name, rule) for name, rule in (self.unless or {}).items()]

    def reason(self, arguments: Any, *, tainted: bool) -> str:
        """See `ToolPolicySettings.approval_reason`."""
        if self.tainted and tainted:
            return "untrusted content was read in this run"
        try:
            broken = next((rule for rule in self.rules if rule.breaks(arguments)), None)
        except Unreadable as error:
            return f"its arguments cannot be read: {error}"
        return f"without it {broken.text}" if broken is not None else ""


class ApprovalsSettings(Section):
    """Questions to people about calls of tools with `approve`. They are answered in the console, by the admin API, or
    with `extproc approvals`.
    """

    wait: Duration = Field(
        0.0,
        le=600,
        description="Longest time that a call waits for an answer, at most `10m`. Then its result says that it is "
        "pending, and the same call may be sent again. Keep it below the timeout of the clients. `0s`: at once.",
    )
    expires: PositiveDuration = Field(
        3600.0,
        ge=60,
        le=43200,
        description="Time in which a question can be answered, and then the approval be used, `1m` to `12h`.",
    )
    elicit: bool = Field(
        False,
        description="Ask the user of the client by elicitation, where the client takes it (2026-07-28). Whoever has "
        "the consumer's key can give the answer, so use it where the client is trusted to ask its user.",
    )
    webhook: WebhookURL | None = Field(
        None,
        description="URL that gets a POST for each question, without the arguments. Incoming webhooks of Slack take "
        "it.",
    )
    max_arguments: Size = Field(
        4 << 10,
        ge=256,
        le=16 << 10,
        description="Most bytes of arguments that people are asked about, `256B` to `16KiB`, because they are shown "
        "whole. A call with more is refused.",
    )


class ToolPolicySettings(Section):
    """The operator's judgement of some tools. What a server says about its own tools is never policy."""

    disabled: bool = Field(
        False, description="Hide the tools and refuse calls of them. Takes effect without a restart."
    )
    sensitive: bool = Field(
        False,
        description="The tools change things, or read what strangers must not see: they are refused once an "
        "`untrusted` tool has answered in the same run.",
    )
    untrusted: bool = Field(False, description="The results of the tools hold text of strangers, as web pages do.")
    price: Annotated[float, Field(ge=0, le=1000)] | None = Field(
        None, description="Price of a call in USD, which budgets in USD count."
    )
    approve: Literal["always"] | ApproveSettings | None = Field(
        None,
        description="Calls that wait for the approval of a person, see `mcp.approvals`. `always`: each. A mapping says "
        "which: `unless` their arguments keep rules, and in `tainted` runs.",
    )

    def approval_reason(self, arguments: Any, *, tainted: bool) -> str:
        """The reason why a call needs the approval of a person; empty if it needs none."""
        if self.approve is None or isinstance(self.approve, str):
            return "" if self.approve is None else "each call of it does"
        return self.approve.reason(arguments, tainted=tainted)


class PinsSettings(Section):
    """Known definitions. A tool, prompt or resource whose definition changed is not offered until it is pinned again,
    and instructions of servers that changed are not passed on.
    """

    file: str = Field(description="File of the known definitions, which `extproc mcp pin` writes.")
    on_change: Literal["hide", "warn"] = Field(
        "hide",
        description="Treatment of definitions that are new or changed. `hide`: they are not listed and not "
        "called. `warn`: they are counted and logged.",
    )
    kinds: Sequence[Literal["tools", "prompts", "resources", "templates", "instructions"]] = Field(
        ("tools", "prompts", "resources", "templates", "instructions"),
        min_length=1,
        description="Kinds of definitions that need a pin. Default: all. Leave `resources` out where the "
        "resources of a server are data, such as files.",
    )


class MCPLimitsSettings(Section):
    """Limits on messages of clients, and on what servers offer."""

    message: Size = Field(
        4 << 20,
        ge=1 << 10,
        le=64 << 20,
        description="Largest message of a client, `1KiB` to `64MiB`; a larger one gets 413. `limits.request_body` and "
        "`limits.json_depth` apply too.",
    )
    name: int = Field(128, ge=16, le=1024, description="Longest name of a tool or prompt, in characters.")
    uri: int = Field(2048, ge=64, le=16384, description="Longest URI of a resource, in characters.")
    catalogue: Size = Field(
        4 << 20,
        ge=1 << 10,
        le=64 << 20,
        description="Most bytes of definitions that one server may offer; also the largest of its answers to lists.",
    )
    tools: int = Field(
        500,
        ge=1,
        le=10_000,
        description="Most tools, prompts, resources and resource templates of one server, of each kind. Further ones "
        "are left out.",
    )
    pages: int = Field(50, ge=1, le=1000, description="Most pages of one list that are asked of a server.")
    sessions: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Most sessions at servers of older revisions that one process keeps; the one that rested longest "
        "is given up for a further one.",
    )
    session_lists: int = Field(
        500,
        ge=1,
        le=100_000,
        description="Most lists of single sessions (`lists: session`) that one process keeps; those at rest for the "
        "longest time are read again.",
    )
    session_age: PositiveDuration = Field(
        86400.0, ge=60, le=30 * 86400, description="Age at which a client's session ends, `1m` to `30d`."
    )


class MCPSettings(_Derived):
    """The MCP gateway: servers, and the profiles in which clients find their tools."""

    resource: str | None = Field(
        None,
        description="Public address of this gateway, `https://ai.acme.com`. With it, clients find the issuers of "
        "`auth.jwt` by themselves (RFC 9728), and a profile's audience is this address and `/mcp/<profile>`. Default: "
        "no such document.",
    )
    origins: Sequence[_Origin] = Field(
        (),
        max_length=64,
        description="Origins of web pages that may call profiles, `https://chat.acme.com`; `*` stands for any part of "
        "a name. Requests without the header `Origin` come from no browser and are not affected.",
    )
    servers: Mapping[Name, MCPServerSettings] = Field(
        min_length=1, max_length=500, description="MCP servers, by a name of your choice."
    )
    profiles: Mapping[Name, MCPProfileSettings] = Field(
        min_length=1, max_length=500, description="Profiles, by the name in their path: `/mcp/<profile>`."
    )
    tools: Mapping[str, ToolPolicySettings] = Field(
        default_factory=dict,
        max_length=2000,
        description="Policy for tools, by `server/tool`, with the server's own name of the tool; `*` stands for any "
        "characters. Of several patterns that match, the one with the most other characters applies.",
    )
    approvals: ApprovalsSettings = ApprovalsSettings()
    pins: PinsSettings | None = Field(None, description="Known definitions of tools. Default: any definition is taken.")
    answers: Literal["audit", "none"] = Field(
        "audit",
        description="Reading of answers that nothing else has to read. `audit`: plain ones are read, so that the log "
        "and the ledger say whether a tool failed. `none`: no answer is read.",
    )
    anonymous: _Patterns = Field(
        (),
        max_length=500,
        description="Patterns of the tools, `profile/name`, for requests without a credential where `auth.required` is "
        "false. Default: none.",
    )
    key: SecretRef | None = Field(
        None,
        description="Secret that signs sessions, as `env:NAME` or `file:/path`. Replicas and workers need the same. "
        "Default: `auth.key_secret`, else one that lives as long as the process.",
    )
    sign_ins: SignInsSettings | None = Field(
        None, description="Sign-ins of users at servers with `auth.sign_in`. Default: no server may have it."
    )
    limits: MCPLimitsSettings = MCPLimitsSettings()

    @field_validator("resource")
    @classmethod
    def _resource(cls, value: str | None) -> str | None:
        if value is None:
            return None
        bare = _bare(value, "resource")
        if urlsplit(bare).path:
            raise ValueError("resource is the address alone, https://host[:port], without a path")
        return bare

    @field_validator("tools")
    @classmethod
    def _named(cls, value: Mapping[str, ToolPolicySettings]) -> Mapping[str, ToolPolicySettings]:
        for pattern in value:
            if "/" not in pattern and pattern != "*":
                raise ValueError(f"{pattern!r}: write server/tool, for example 'github/create_*'")
        return value

    @model_validator(mode="after")
    def _can_sign_in(self) -> MCPSettings:
        if not self.signs_in:
            return self
        if self.sign_ins is None or self.resource is None:
            raise ValueError("auth.sign_in of a server needs sign_ins, and resource, where users come back from it")
        if urlsplit(self.resource).scheme != "https" and not is_loopback(urlsplit(self.resource).hostname or ""):
            raise ValueError("resource must be https, because users come back there with a code")
        return self

    @property
    def signs_in(self) -> bool:
        """True if users sign in at a server."""
        return any(server.auth is not None and server.auth.sign_in is not None for server in self.servers.values())

    @property
    def hops(self) -> Mapping[str, ProviderSettings]:
        """The servers in the form of providers, by the names of their hops."""
        return {HOP + name: server.hop for name, server in self.servers.items()}

    @property
    def for_users(self) -> bool:
        """True if a server is called on behalf of users."""
        return any(server.auth is not None for server in self.servers.values())

    @property
    def of_envoy(self) -> Any:
        """All settings that Envoy's configuration is made from, as plain values."""
        fields = {name: each.model_copy(update=_HOT).model_dump(mode="json") for name, each in self.servers.items()}
        return [fields, list(self.origins)]

    def without_envoy(self, now: MCPSettings) -> MCPSettings:
        """The part of these settings that can apply while Envoy has the configuration of `now`: servers unknown to
        Envoy are switched off, and profiles with such a server stay unchanged.
        """
        servers, waiting = {}, set[str]()
        for name, new in self.servers.items():
            old, hot = now.servers.get(name), {field: getattr(new, field) for field in _HOT}
            servers[name] = old.model_copy(update=hot) if old is not None else new.model_copy(update={"disabled": True})
            if old is None and not new.disabled:
                waiting.add(name)
        profiles = {
            name: now.profiles.get(name, profile) if waiting.intersection(profile.servers) else profile
            for name, profile in self.profiles.items()
        }
        for name in {server for profile in profiles.values() for server in profile.servers} - servers.keys():
            servers[name] = now.servers[name]
        return self.model_copy(update={"servers": servers, "profiles": profiles, "origins": now.origins})

    def carried(self, server: str) -> Mapping[str, Any]:
        """The abilities of clients that the gateway passes to a server; a server may offer tools only for certain
        abilities.
        """
        alone = any([*profile.servers] == [server] for profile in self.profiles.values())
        found: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}}
        return {**found, "sampling": {}, "roots": {}} if alone else found

    def policy(self, server: str, tool: str) -> ToolPolicySettings:
        """The policy for a tool, by the server's own name of it."""
        name = f"{server}/{tool}"
        if (known := self._policies.get(name)) is not None:
            return known
        found = next((policy for pattern, policy in self._patterns if pattern(name)), ToolPolicySettings())
        if self.servers[server].untrusted and not found.untrusted:
            found = found.model_copy(update={"untrusted": True})
        if len(self._policies) >= _MOST_POLICIES:
            self._policies.clear()
        self._policies[name] = found
        return found

    @cached_property
    def _policies(self) -> dict[str, ToolPolicySettings]:
        """Cached policies by `server/tool`."""
        return {}

    @cached_property
    def _patterns(self) -> Sequence[tuple[Pattern, ToolPolicySettings]]:
        """Patterns, the most specific first."""
        return [(Pattern(each), self.tools[each]) for each in sorted(self.tools, key=_special, reverse=True)]


def _special(pattern: str) -> tuple[bool, int]:
    """The sort key of a pattern by its specificity: a pattern without `*` comes first."""
    return "*" not in pattern, len(pattern.replace("*", ""))
