"""`mcp.sign_ins`, and `mcp.servers.*.auth.sign_in`, of the filter YAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from extproc.words.urls import check_url
from extproc.words.values import PositiveDuration, SecretRef, Section, is_loopback


def secure(value: str, name: str) -> str:
    """`value`. Raises ValueError unless it is an https address, or http on a loopback address."""
    parts = check_url(value, name, forbidden="%")
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"{name} must be https")
    return value


class SignInSettings(Section):
    """Users sign in at the server: the authorization code flow of OAuth 2.1 with PKCE. All fields are optional."""

    issuer: str | None = Field(
        None, description="Issuer of the server's tokens. Default: the one that the server names (RFC 9728)."
    )
    client_id: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description="Name of the gateway as a client of the issuer. Default: the address of the gateway's document, "
        "if the issuer reads such documents, else the gateway registers itself (RFC 7591).",
    )
    client_secret: SecretRef | None = Field(
        None, description="Secret of that client, as `env:NAME` or `file:/path`. Default: a public client."
    )
    client_auth: Literal["basic", "post"] = Field(
        "basic", description="Place of the client's name and secret: HTTP Basic, or the form."
    )
    scope: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="Scopes that users are asked for, separated by spaces. Default: those that the server names.",
    )

    @field_validator("issuer")
    @classmethod
    def _issuer(cls, value: str | None) -> str | None:
        return None if value is None else secure(value, "issuer")

    @model_validator(mode="after")
    def _named(self) -> SignInSettings:
        if self.client_secret is not None and self.client_id is None:
            raise ValueError("client_secret needs client_id")
        return self


class SignInsSettings(Section):
    """The sign-ins of users at servers with `auth.sign_in`."""

    keys: Sequence[SecretRef] = Field(
        min_length=1,
        max_length=4,
        description="Secrets that encrypt the tokens of users, as `env:NAME` or `file:/path`. The first one encrypts, "
        "all decrypt: put a new one first, and remove the old one after `keep`. All replicas need the same.",
    )
    open: PositiveDuration = Field(
        600.0, ge=60, le=3600, description="Time in which a user can finish a sign-in, `1m` to `1h`."
    )
    keep: PositiveDuration = Field(
        30 * 86400.0,
        ge=3600,
        le=366 * 86400,
        description="Time for which tokens of a user are kept since they were last renewed, `1h` to `366d`.",
    )
