"""The settings of who may ask: credentials, consumers, teams, groups, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, field_validator, model_validator

from extproc.words.values import Duration, Name, Secret, SecretRef, Section, is_variable

MOST_LABEL = 256
"""Bytes of UTF-8 of a label's value, and of a consumer's name that comes from a token."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")]
_LABELS = "Labels that headers cannot override"


def cut(label: str) -> str:
    """As much of a label's value as is kept."""
    if label.isascii():
        return label[:MOST_LABEL]
    return label[:MOST_LABEL].encode(errors="replace")[:MOST_LABEL].decode(errors="ignore")


class KeySettings(Section):
    """One key of a consumer: where it is, or what it hashes to (`extproc keys` prints both)."""

    env: str | None = None
    file: str | None = None
    hash: Annotated[str, StringConstraints(pattern=r"^hmac-sha256:[0-9a-f]{64}$")] | None = None
    name: Name | None = Field(None, description="What the ledger calls it, `consumer#name`; default: its number from 0")
    expires: date | None = Field(None, description="The first day (UTC) on which it is no longer good")
    disabled: bool = Field(False, description="Kill switch: it is refused")
    labels: Mapping[Name, str] = Field(default_factory=dict, description=_LABELS)

    @model_validator(mode="after")
    def _one(self) -> KeySettings:
        if sum(value is not None for value in (self.env, self.file, self.hash)) != 1:
            raise ValueError("a key is one of {env: NAME}, {file: /path} or {hash: hmac-sha256:…}")
        if self.env is not None and not is_variable(self.env):
            raise ValueError("env is the name of an environment variable, never the key itself")
        return self

    @property
    def secret(self) -> Secret | None:
        if self.env is not None:
            return Secret("env", self.env)
        return Secret("file", self.file) if self.file is not None else None


class ConsumerSettings(Section):
    """Who pays: a person, an application, an agent."""

    name: Name
    team: Name | None = None
    groups: Sequence[Name] = ()
    keys: Sequence[KeySettings] = ()
    subjects: Sequence[Text] = Field((), description="Names in tokens (`auth.jwt`, its `prefix` included) that are it")
    certificates: Sequence[Text] = Field(
        (), description="Client certificates that are it, by URI SAN (spiffe://…), DNS SAN or whole subject (CN=…,O=…)"
    )
    expires: date | None = Field(None, description="The first day (UTC) on which its credentials are no longer good")
    disabled: bool = Field(False, description="Kill switch: its credentials are refused")
    models: Sequence[str] | None = Field(None, description="Patterns of models it may use; absent: all; []: none")
    labels: Mapping[str, str] = Field(default_factory=dict, description=_LABELS)

    @property
    def can_enter(self) -> bool:
        """Whether it has any credential."""
        return bool(self.keys or self.subjects or self.certificates)


class TeamSettings(Section):
    models: Sequence[str] | None = Field(None, description="Patterns of models its members may use at most")
    labels: Mapping[Name, str] = Field(default_factory=dict, description=_LABELS)


class GroupSettings(Section):
    models: Sequence[str] | None = Field(
        None, description="Patterns of models for its members; whoever is in several may use those of each"
    )


def _header(value: str) -> str:
    if not value or not value.replace("-", "").isalnum() or value != value.lower() or not value.isascii():
        raise ValueError("a header is a lower-case name")
    if value.startswith(("x-extproc-", "x-envoy-")):
        raise ValueError("clients cannot send this header")
    return value


class JWTSettings(Section):
    """Tokens of one issuer. Envoy verifies signature, issuer, audience and time; claims say who it is."""

    issuer: Text = Field(description="The claim `iss`, letter by letter")
    audiences: Sequence[Text] = Field(min_length=1, description="The claim `aud` must hold one of these")
    jwks_uri: str | None = Field(None, description="Where the issuer publishes its keys; fetched every five minutes")
    jwks: Annotated[str, StringConstraints(pattern="^file:.+")] | None = Field(
        None, description="Its keys in a file instead, file:/path; read when Envoy starts"
    )
    tls_ca: str | None = Field(None, description="A PEM file of authorities for jwks_uri; default: the system's")
    header: Annotated[str, AfterValidator(_header)] = Field(
        "authorization", description="Where the token is: after `Bearer` in authorization, alone in any other header"
    )
    consumer: Text = Field("sub", description="The claim that names the consumer. Dots lead into objects")
    prefix: Annotated[str, StringConstraints(max_length=64, pattern=r"^[!-~]*$")] = Field(
        "", description="Stands before that name; two issuers need prefixes that tell their consumers apart"
    )
    team: Text | None = Field(None, description="The claim that names a team of `teams`; the first known one counts")
    groups: Text | None = Field(None, description="The claim that names groups of `groups`; unknown ones are left out")
    labels: Mapping[Name, Text] = Field(default_factory=dict, max_length=16, description="Label: claim")
    clock_skew: Duration = Field(60.0, le=600, description="How far clocks may differ; whole seconds")

    @model_validator(mode="after")
    def _keys(self) -> JWTSettings:
        if (self.jwks_uri is None) == (self.jwks is None):
            raise ValueError("its keys are at jwks_uri, or in jwks: file:/path; give one")
        if self.jwks_uri is not None:
            url = urlsplit(self.jwks_uri)
            if url.scheme not in ("http", "https") or not url.hostname or url.username or url.fragment:
                raise ValueError("jwks_uri is https://host/path")
            url.port  # noqa: B018 - raises ValueError
        return self


def _listed(value: object) -> object:
    """One issuer may stand there without a list around it."""
    return [value] if isinstance(value, dict) else value


def _or_one(schema: dict[str, Any]) -> None:
    """The same for editors."""
    schema["anyOf"] = [schema["items"], {"type": schema.pop("type")}]


class AuthSettings(Section):
    required: bool = Field(True, description="false: a request without a credential is the consumer `anonymous`")
    key_secret: SecretRef | None = Field(None, description="Keys the hashes of gateway keys; needed for `hash:` keys")
    jwt: Annotated[Sequence[JWTSettings], BeforeValidator(_listed)] = Field(
        (), max_length=16, description="One issuer of tokens, or a list of them", json_schema_extra=_or_one
    )


class AttributionSettings(Section):
    prefix: Annotated[str, StringConstraints(pattern=r"^x-[a-z0-9-]*-$")] = "x-ai-"
    strip: bool = Field(True, description="Labels do not reach the provider")
    metrics: Sequence[Name] = Field((), max_length=4, description="Labels that become labels of metrics")

    @field_validator("metrics")
    @classmethod
    def _distinct(cls, value: Sequence[str]) -> Sequence[str]:
        if len({name.replace("-", "_").replace(".", "_") for name in value}) < len(value):
            raise ValueError("two of these would be the same label of a metric, where - and . are written _")
        return value
