"""`mcp.servers.*.auth` of the filter YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from extproc.tools.sign_in.settings import SignInSettings, secure
from extproc.words.values import SecretRef, Section

_Word = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^[ -~]*$")]
_OURS = frozenset(
    (
        *("grant_type", "subject_token", "subject_token_type", "assertion", "actor_token", "actor_token_type"),
        *("client_id", "client_secret", "audience", "resource", "scope", "requested_token_type"),
    )
)


class TokenEndpointSettings(Section):
    """A token endpoint that the caller's token is given to."""

    endpoint: str = Field(description="Address of the token endpoint. It is https, or http on a loopback address.")
    client_id: str = Field(
        min_length=1, max_length=512, description="Name of the gateway as a client of the token endpoint."
    )
    client_secret: SecretRef = Field(description="Secret of that client, as `env:NAME` or `file:/path`.")
    client_auth: Literal["basic", "post"] = Field(
        "basic", description="Place of the client's name and secret: HTTP Basic, or the form."
    )
    scope: str | None = Field(
        None, min_length=1, max_length=2048, description="`scope` of the request, separated by spaces."
    )
    parameters: Mapping[_Word, _Word] = Field(
        default_factory=dict, max_length=16, description="Further parameters of the request."
    )
    max_tokens: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Most tokens of users that one process keeps, of all servers; for a further one, that which rested "
        "longest is given up.",
    )

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        return secure(value, "endpoint")

    @field_validator("parameters")
    @classmethod
    def _further(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if taken := _OURS & value.keys():
            raise ValueError(f"the gateway sets {min(taken)}")
        return value


class TokenExchangeSettings(TokenEndpointSettings):
    """Exchange of the caller's token for one of the server, at a token endpoint (RFC 8693)."""

    audience: str | None = Field(
        None, min_length=1, max_length=2048, description="`audience` of the request: the server's name at the endpoint."
    )
    resource: str | None = Field(
        None, min_length=1, max_length=2048, description="`resource` of the request: the server's address."
    )
    subject_token_type: Literal["access_token", "jwt", "id_token"] = Field(
        "access_token", description="Type of the caller's token, as the endpoint calls it."
    )
    actor_token: SecretRef | None = Field(
        None,
        description="Token (JWT) of the gateway as the acting party, as `env:NAME` or `file:/path`. It is read for "
        "each exchange. Default: none.",
    )

    @model_validator(mode="after")
    def _aimed(self) -> TokenExchangeSettings:
        if self.audience is None and self.resource is None:
            raise ValueError("give audience or resource, so that the token is good for this server alone")
        return self


class JWTBearerSettings(TokenEndpointSettings):
    """A token of the server for the caller's token as an assertion (RFC 7523)."""

    scope: str = Field(
        min_length=1,
        max_length=2048,
        description="`scope` of the request, which names the server: `api://tickets/.default`.",
    )


class OwnTokenSettings(Section):
    """The caller's own token, where it is made for the server too."""

    audience: _Word = Field(description="Audience of the server, which the token must name in `aud`.")


class MCPAuthSettings(Section):
    """Calls on behalf of the user: one of `token_exchange`, `jwt_bearer`, `own_token` and `sign_in`."""

    token_exchange: TokenExchangeSettings | None = Field(
        None, description="Exchange of the caller's token for one of the server (RFC 8693)."
    )
    jwt_bearer: JWTBearerSettings | None = Field(
        None,
        description="A token for the caller's token as an assertion (RFC 7523). With `client_auth: post` and "
        "`parameters: {requested_token_use: on_behalf_of}` it is Entra's on-behalf-of flow.",
    )
    own_token: OwnTokenSettings | None = Field(
        None, description="The caller's own token, if it is for the server too. It is sent in no other way."
    )
    sign_in: SignInSettings | None = Field(
        None, description="A token of the server for which its user signs in there, by a link. Needs `mcp.sign_ins`."
    )
    without_user: Literal["refuse", "token", "consumer"] = Field(
        "refuse",
        description="Treatment of calls without a token of a user, such as those with a gateway key. `refuse`: they "
        "are refused. `token`: they have the server's own `token`. `consumer`, with `sign_in` alone: the consumer is "
        "the user, for keys that one person has.",
    )

    @model_validator(mode="after")
    def _one(self) -> MCPAuthSettings:
        if sum(way is not None for way in (self.token_exchange, self.jwt_bearer, self.own_token, self.sign_in)) != 1:
            raise ValueError("give one of token_exchange, jwt_bearer, own_token and sign_in")
        if self.without_user == "consumer" and self.sign_in is None:
            raise ValueError("without_user: consumer needs sign_in")
        return self

    @property
    def at_endpoint(self) -> TokenExchangeSettings | JWTBearerSettings | None:
        """The way that asks a token endpoint."""
        return self.token_exchange or self.jwt_bearer
