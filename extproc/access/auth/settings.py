"""Settings of access: credentials, consumers, teams, groups, labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from extproc.access.auth.require import RequireSettings
from extproc.words.values import Duration, Name, Secret, SecretRef, Section, is_variable

MOST_LABEL = 256
"""Most bytes of UTF-8 in a label's value, and in a consumer's name from a token."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")]
_LABELS = "Headers cannot override them. An empty value removes the label."
_TOOLS = (
    "A tool must be granted by the consumer, its team and one of its groups, as far as they name tools; where none of "
    "them does, the consumer may use no tool."
)
Patterns = Annotated[Sequence[Annotated[str, StringConstraints(min_length=1, max_length=512)]], Field(max_length=1000)]


def cut(label: str) -> str:
    """A label's value, cut to the length that is kept."""
    if label.isascii():
        return label[:MOST_LABEL]
    return label[:MOST_LABEL].encode(errors="replace")[:MOST_LABEL].decode(errors="ignore")


class KeySettings(Section):
    """A gateway key of a consumer: one of `env`, `file` and `hash`. `extproc keys` makes a key and its hash."""

    env: str | None = Field(None, description="Environment variable that holds the key. Read when the settings are.")
    file: str | None = Field(None, description="Path of the file that holds the key. Read again when it changes.")
    hash: Annotated[str, StringConstraints(pattern=r"^hmac-sha256:[0-9a-f]{64}$")] | None = Field(
        None, description="Hash of the key, `hmac-sha256:…`, as `extproc keys` prints it. Needs `auth.key_secret`."
    )
    name: Name | None = Field(
        None, description="Name of the key in reports: `consumer#name`. Default: its position in the list, from 0."
    )
    expires: date | None = Field(None, description="First day, in UTC, on which the key is refused.")
    disabled: bool = Field(False, description="Refuse the key. Takes effect without a restart.")
    labels: Mapping[Name, str] = Field(default_factory=dict, description=f"Labels of requests with the key. {_LABELS}")

    @model_validator(mode="after")
    def _one(self) -> KeySettings:
        if sum(value is not None for value in (self.env, self.file, self.hash)) != 1:
            raise ValueError("give a key as one of {env: NAME}, {file: /path} or {hash: hmac-sha256:…}")
        if self.env is not None and not is_variable(self.env):
            raise ValueError("env must be the name of an environment variable, never the key itself")
        return self

    @property
    def secret(self) -> Secret | None:
        if self.env is not None:
            return Secret("env", self.env)
        return Secret("file", self.file) if self.file is not None else None


class ConsumerSettings(Section):
    """A consumer: a person, an application or an agent that sends requests."""

    name: Name = Field(description="Name of the consumer in budgets, reports, logs and metrics.")
    team: Name | None = Field(None, description="Team of the consumer: a key of `teams`.")
    groups: Sequence[Name] = Field((), description="Groups of the consumer: keys of `groups`.")
    keys: Sequence[KeySettings] = Field((), description="Gateway keys of the consumer. Several keys ease rotation.")
    subjects: Sequence[Text] = Field(
        (),
        description="Names in tokens (`auth.jwt`) that stand for the consumer, with the issuer's `prefix`. Without "
        "them no token can be a consumer of this file.",
    )
    certificates: Sequence[Text] = Field(
        (),
        description="Client certificates of the consumer, by URI SAN (`spiffe://…`), DNS SAN or whole subject "
        "(`CN=…,O=…`).",
    )
    expires: date | None = Field(
        None, description="First day, in UTC, on which all credentials of the consumer are refused."
    )
    disabled: bool = Field(False, description="Refuse all credentials of the consumer. Takes effect without a restart.")
    models: Sequence[str] | None = Field(
        None, description="Patterns of the models that the consumer may use. Default: all. `[]`: none."
    )
    tools: Patterns | None = Field(
        None,
        description="Patterns of the tools, prompts and resources that the consumer may use, as `profile/name` with "
        f"the name that clients see. {_TOOLS}",
    )
    labels: Mapping[str, str] = Field(default_factory=dict, description=f"Labels of the consumer's requests. {_LABELS}")
    require: RequireSettings | None = Field(
        None, description="Facts of each model that the consumer's requests may reach, in addition to its team's."
    )

    @property
    def can_enter(self) -> bool:
        """True when the consumer has a credential."""
        return bool(self.keys or self.subjects or self.certificates)


class TeamSettings(Section):
    """A team: the most that its members may use, and their labels."""

    models: Sequence[str] | None = Field(
        None, description="Patterns of the models that members may use at most. Default: all. `[]`: none."
    )
    tools: Patterns | None = Field(
        None, description=f"Patterns of the tools that members may use at most, as `profile/name`. {_TOOLS}"
    )
    labels: Mapping[Name, str] = Field(default_factory=dict, description=f"Labels of the members' requests. {_LABELS}")
    require: RequireSettings | None = Field(
        None, description="Facts of each model that the members' requests may reach."
    )


class GroupSettings(Section):
    """A group: models for its members."""

    models: Sequence[str] | None = Field(
        None,
        description="Patterns of the models that members may use. A member of several groups may use the models of "
        "each. Default: the group sets no limit.",
    )
    tools: Patterns | None = Field(
        None, description=f"Patterns of the tools that members may use, as `profile/name`. {_TOOLS}"
    )


def _header(value: str) -> str:
    if not value or not value.replace("-", "").isalnum() or value != value.lower() or not value.isascii():
        raise ValueError("a header's name has lower-case letters, digits and dashes")
    if value.startswith(("x-extproc-", "x-envoy-")):
        raise ValueError("clients cannot send this header: Envoy removes it")
    return value


class JWTSettings(Section):
    """An issuer of tokens (JWT). Envoy verifies signature, issuer, audience and time; claims name the consumer."""

    issuer: Text = Field(description="Issuer of the tokens. Must equal the claim `iss` exactly.")
    audiences: Sequence[Text] = Field(
        min_length=1, description="Audiences of the gateway. The claim `aud` must hold one of them."
    )
    jwks_uri: str | None = Field(
        None, description="URL of the issuer's keys (JWKS). Envoy fetches them every five minutes."
    )
    jwks: Annotated[str, StringConstraints(pattern="^file:.+")] | None = Field(
        None, description="File of the issuer's keys in place of `jwks_uri`, as `file:/path`. Read when Envoy starts."
    )
    tls_ca: str | None = Field(
        None, description="PEM file of certificate authorities that verify `jwks_uri`. Default: the system's."
    )
    header: Annotated[str, AfterValidator(_header)] = Field(
        "authorization",
        description="Header with the token: after `Bearer` in `authorization`, alone in any other header.",
    )
    consumer: Text = Field(
        "sub", description="Claim that names the consumer. Dots lead into objects: `realm_access.roles`."
    )
    prefix: Annotated[str, StringConstraints(max_length=64, pattern=r"^[!-~]*$")] = Field(
        "",
        description="Text before the names of the issuer's consumers, for example `github:`. Several issuers need "
        "prefixes that keep their consumers apart.",
    )
    team: Text | None = Field(
        None,
        description="Claim that names the team. The first value that is a key of `teams` counts. A token without one "
        "may use no model.",
    )
    groups: Text | None = Field(
        None,
        description="Claim that names the groups. Values that are no key of `groups` are ignored. A token without a "
        "known group may use no model.",
    )
    labels: Mapping[Name, Text] = Field(
        default_factory=dict,
        max_length=16,
        description="Labels from claims, as `label: claim`. Headers cannot set these labels.",
    )
    clock_skew: Duration = Field(
        60.0,
        le=600,
        description="Largest difference between the clocks of the issuer and the gateway, in whole seconds, at most "
        "`10m`.",
    )

    @property
    def mark(self) -> str:
        """A digest of everything that Envoy verifies. While issuers change, older connections still carry claims of the
        old list. A digest identifies their issuer, where a list index could name another one.
        """
        verified = (self.issuer, [*self.audiences], self.jwks_uri, self.jwks, self.tls_ca, self.header, self.clock_skew)
        return hashlib.blake2b(repr(verified).encode(), digest_size=6).hexdigest()

    @model_validator(mode="after")
    def _keys(self) -> JWTSettings:
        if (self.jwks_uri is None) == (self.jwks is None):
            raise ValueError("give the issuer's keys as jwks_uri or as jwks: file:/path, one of them")
        if self.jwks_uri is not None:
            url = urlsplit(self.jwks_uri)
            if url.scheme not in ("http", "https") or not url.hostname or url.username or url.fragment:
                raise ValueError("jwks_uri must be https://host/path")
            url.port  # noqa: B018 - raises ValueError
        return self


def _listed(value: object) -> object:
    """A list of issuers, from a list or a single issuer."""
    return [value] if isinstance(value, dict) else value


def _or_one(schema: dict[str, Any]) -> None:
    """A JSON Schema that also allows a single issuer in place of a list."""
    schema["anyOf"] = [schema["items"], {"type": schema.pop("type")}]


class AuthSettings(Section):
    """Authentication of clients."""

    required: bool = Field(
        True,
        description="Refuse requests without a credential. With `false` they belong to the consumer `anonymous`.",
    )
    key_secret: SecretRef | None = Field(
        None,
        description="Secret of the hashes of gateway keys, as `env:NAME` or `file:/path`. Keys given as `hash` need "
        "it. A new secret invalidates them.",
    )
    jwt: Annotated[Sequence[JWTSettings], BeforeValidator(_listed)] = Field(
        (),
        max_length=16,
        description="Issuers of tokens for single sign-on: one issuer, or a list of up to 16.",
        json_schema_extra=_or_one,
    )

    def read_key_secret(self) -> str | None:
        """`key_secret`, or its last value while its file is missing, because no hashed key works without it."""
        return None if self.key_secret is None else self.key_secret.read_or_last()


HeaderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


class AttributionSettings(Section):
    """Labels: headers of clients that attribute requests to a run, an agent or a project."""

    prefix: Annotated[str, StringConstraints(pattern=r"^x-[a-z0-9-]*-$")] = Field(
        "x-ai-", description="Prefix of the headers that become labels: `x-ai-run` is the label `run`."
    )
    strip: bool = Field(True, description="Remove these headers from requests to providers.")
    session: Sequence[HeaderName] = Field(
        ("x-claude-code-session-id", "session-id"),
        max_length=8,
        description="Headers in which agents name their session by themselves (Claude Code, Codex). The first that a "
        "request has becomes the label `session`, unless a label of that name is there. `[]` turns it off. At most 8.",
    )
    metrics: Sequence[Name] = Field(
        (),
        max_length=4,
        description="Labels that become labels of the metrics by consumer, at most 4. Each adds time series.",
    )
    max_series: int = Field(
        2000,
        ge=1,
        le=100_000,
        description="Combinations of consumer, team and labels that the metrics count apart. Later ones are counted as "
        "`other`.",
    )

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, value: Sequence[str]) -> Sequence[str]:
        if len({name.replace("-", "_").replace(".", "_") for name in value}) < len(value):
            raise ValueError("two labels would have the same name in metrics, which write - and . as _")
        return value
