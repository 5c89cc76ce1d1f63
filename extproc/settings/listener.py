"""Settings of the public listener."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator, model_validator

from extproc.upstream.providers import ClientHeader
from extproc.words.values import PositiveDuration, Section

Port = Annotated[int, Field(ge=1, le=65535)]
PEMFile = Annotated[str, StringConstraints(pattern="^file:.+")]
ORIGIN = r"^(\*|https?://(\*\.)?[A-Za-z0-9.-]+(:[0-9]{1,5})?)$"


class TLSSettings(Section):
    """TLS of the public listener. Without it the listener speaks plain HTTP."""

    certificate: PEMFile = Field(description="Certificate chain of the listener in PEM, as `file:/path`.")
    key: PEMFile = Field(description="Private key of the listener's certificate in PEM, as `file:/path`.")
    client_ca: PEMFile | None = Field(
        None,
        description="Certificate authorities of client certificates in PEM, as `file:/path`. A client certificate of "
        "another authority cannot connect. Set it to identify consumers by their `certificates`.",
    )
    require_client_certificate: bool = Field(
        False, description="Refuse connections without a client certificate. Needs `client_ca`."
    )

    @model_validator(mode="after")
    def _verifiable(self) -> TLSSettings:
        if self.require_client_certificate and self.client_ca is None:
            raise ValueError("require_client_certificate needs client_ca, which verifies the certificates")
        return self

    @property
    def files(self) -> tuple[str, str]:
        """The paths of certificate and key."""
        return self.certificate.removeprefix("file:"), self.key.removeprefix("file:")


class CORSSettings(Section):
    """Cross-origin requests of browsers. Envoy answers their preflights, without a key."""

    origins: Sequence[Annotated[str, StringConstraints(pattern=ORIGIN)]] = Field(
        min_length=1,
        max_length=100,
        description="Origins of the pages that may call the gateway: `https://app.example.com`, with a star for any "
        "subdomain: `https://*.example.com`, or `*` for every page.",
    )
    headers: Sequence[Annotated[str, StringConstraints(pattern=r"^(\*|[A-Za-z0-9-]{1,64})$")]] = Field(
        ("*", "authorization"),
        min_length=1,
        max_length=100,
        description="Request headers that pages may send. `*` stands for all but `authorization`, which browsers want "
        "named.",
    )
    max_age: PositiveDuration = Field(
        600.0, le=86400, description="Time for which a browser may remember the answer to a preflight. At most `1d`."
    )


class AttachSettings(Section):
    """Attach mode: the filter in an Envoy of another team."""

    client_headers: Sequence[ClientHeader] | None = Field(
        None,
        max_length=64,
        description="Headers of clients that the routes of the other team's Envoy read, for example `x-tenant`, or "
        "`x-acme-*` for all with that beginning. With this list, even an empty one, the filter removes all headers of "
        "clients but these, those that every provider of the model takes, `x-request-id`, `x-forwarded-*` and "
        "`x-envoy-*`. At most 64. Default: all headers stay, and that Envoy has to remove them.",
    )


class ListenerSettings(Section):
    """The public listener of Envoy, where clients connect."""

    address: str = Field(
        "0.0.0.0",  # noqa: S104 - it is the public door
        description="Address that Envoy listens on for clients. `127.0.0.1` keeps the gateway on this machine.",
    )
    port: Port = Field(10000, description="Port that Envoy listens on for clients.")
    tls: TLSSettings | None = Field(
        None, description="TLS of the public listener. Without it the listener speaks plain HTTP."
    )
    max_connections: int = Field(
        20000, ge=1, le=1_000_000, description="Most client connections at the same time. Envoy refuses further ones."
    )
    cors: CORSSettings | None = Field(
        None, description="Cross-origin requests of browsers. Without it a page of another origin cannot call."
    )
    my_usage: bool = Field(
        False,
        description="Page `/my-usage`, where the owner of a gateway key sees its own usage and budgets. The page has "
        "no data, so it can be loaded without a key.",
    )

    @field_validator("address")
    @classmethod
    def _numeric(cls, value: str) -> str:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise ValueError("an IP address is expected: 127.0.0.1 for this machine, 0.0.0.0 for all") from None
        return value
