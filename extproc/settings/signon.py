"""`admin.oidc:` of the filter YAML: operators sign on to the console with OpenID Connect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from extproc.words.values import Pattern, PositiveDuration, SecretRef, Section, has_package, is_loopback

_Text = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]


def _address(value: str) -> str:
    url = urlsplit(value)
    plain = url.scheme == "http" and is_loopback(url.hostname or "")
    if not (url.scheme == "https" or plain) or not url.hostname or url.username or url.query or url.fragment:
        raise ValueError("an https:// address without user, query and fragment (http:// on loopback alone)")
    return value.rstrip("/")


_Address = Annotated[str, AfterValidator(_address)]


class OIDCSettings(Section):
    """Sign-on of operators: the authorization code flow with PKCE."""

    issuer: _Address = Field(
        description="Issuer of the provider's tokens, `https://…`. Its discovery document is read."
    )
    client_id: _Text = Field(description="Client that is registered for the console at the provider.")
    client_secret: SecretRef | None = Field(
        None, description="Secret of the client, as `env:NAME` or `file:/path`. Default: a public client."
    )
    url: _Address = Field(
        description="Address at which operators open the console, without a path. The client's redirect is "
        "`/auth/callback` there."
    )
    scopes: Sequence[_Text] = Field(
        ("openid", "profile", "email"), max_length=16, description="Scopes that are asked for."
    )
    name: _Text = Field("email", description="Claim that names the operator in the audit trail.")
    roles: _Text = Field(
        "groups", description="Claim with the operator's groups: a text, or a list. Dots lead into objects."
    )
    viewers: Sequence[_Text] = Field(
        (), max_length=64, description="Patterns of groups whose members may read. `*`: all operators that can sign on."
    )
    operators: Sequence[_Text] = Field(
        (), max_length=64, description="Patterns of groups whose members may also grant, and make keys."
    )
    admins: Sequence[_Text] = Field(
        (), max_length=64, description="Patterns of groups whose members may do everything."
    )
    session: PositiveDuration = Field(
        8 * 3600.0, ge=60, le=7 * 86400, description="Time after which an operator signs on again, `1m` to `7d`."
    )
    sign_ins: int = Field(60, ge=1, le=10_000, description="Most sign-ins that are begun in a minute; more get 429.")

    @model_validator(mode="after")
    def _usable(self) -> OIDCSettings:
        if urlsplit(self.url).path:
            raise ValueError("url has no path: the console asks for /usage, /auth/login … at the root of its address")
        if "openid" not in self.scopes:
            raise ValueError("scopes must hold openid")
        if not (self.viewers or self.operators or self.admins):
            raise ValueError("name groups in viewers, operators or admins, or no operator has a role")
        if not has_package("jwt"):
            raise ValueError("sign-on needs a library: pip install 'llm-extproc[console]'")
        return self

    def role(self, groups: Sequence[str]) -> str | None:
        """The highest role of a member of these groups; None without a role."""
        for role, patterns in (("admin", self.admins), ("operator", self.operators), ("viewer", self.viewers)):
            for pattern in map(Pattern, patterns):
                if any(map(pattern, groups)) or pattern.text == "*":
                    return role
        return None
