"""A client of OAuth 2.1 authorization servers that are found from the resource they protect.

   resource ──RFC 9728──► issuer ──RFC 8414, OpenID discovery──► endpoints ──RFC 7591──► client
   authorization code with PKCE (S256) and `resource` (RFC 8707) ──► tokens ──refresh token──► tokens

The resource's documents name further addresses. Each has to be https, or http on a loopback address. A resource with a
public address may not name private or loopback ones, no redirect is followed, and metadata services of clouds are
refused after name resolution. An answer has 64 KiB at most.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from extproc.upstream.credentials.oauth import (
    PRINTABLE,
    TokenError,
    TokenRequest,
    as_client,
    check_status,
    checked,
    send_form,
    send_json,
)
from extproc.words.values import is_private

MOST_SCOPES = 64
"""Most scopes of one sign-in."""
_PROTECTED, _SERVER, _OPENID = (
    f"/.well-known/{name}"
    for name in ("oauth-protected-resource", "oauth-authorization-server", "openid-configuration")
)
_PARAMETER = re.compile(r'([a-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.IGNORECASE)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")  # RFC 6749, section 3.3


class AuthorizationServer(msgspec.Struct, frozen=True):
    """The document of an authorization server (RFC 8414)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    registration_endpoint: str = ""
    code_challenge_methods_supported: Sequence[str] = ()
    token_endpoint_auth_methods_supported: Sequence[str] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False
    client_id_metadata_document_supported: bool = False


class _Resource(msgspec.Struct):
    resource: str = ""
    authorization_servers: Sequence[str] = ()
    scopes_supported: Sequence[str] = ()


class Protection(msgspec.Struct, frozen=True):
    """The way to tokens for a resource: `resource` is the name that they are asked for."""

    server: AuthorizationServer
    resource: str
    scopes: Sequence[str]


class OAuthClient(msgspec.Struct, frozen=True):
    """The gateway at an authorization server. `way` of its authentication: basic, post, none."""

    id: str
    secret: str = ""
    way: str = "none"


class Grant(msgspec.Struct):
    """An answer of a token endpoint. Its `repr` has no token."""

    access_token: str
    expires_in: float | None = None
    refresh_token: str = ""
    scope: str = ""
    id_token: str = ""
    token_type: str = "Bearer"  # noqa: S105

    def __repr__(self) -> str:
        return "Grant()"


class _Registered(msgspec.Struct):
    client_id: str
    client_secret: str = ""
    token_endpoint_auth_method: str = ""


_decoders: Mapping[type[Any], Callable[[bytes], Any]] = {
    kind: msgspec.json.Decoder(kind, strict=False).decode  # not strict: `expires_in` may be text
    for kind in (AuthorizationServer, _Resource, Grant, _Registered)
}


def challenge(header: str) -> Mapping[str, str]:
    """The parameters of a challenge (WWW-Authenticate, RFC 6750), by lower-case name."""
    found = _PARAMETER.findall(header[:8192])
    return {name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain for name, quoted, plain in found}


def scopes_of(text: str) -> Sequence[str]:
    """The scopes of a text, without repetition; at most `MOST_SCOPES`."""
    return [one for one in dict.fromkeys(text.split()) if _SCOPE.fullmatch(one)][:MOST_SCOPES]


async def discover(resource: str, told: str = "", issuer: str | None = None) -> Protection:
    """The authorization server of the resource at the address `resource`. `told`: the address of the resource's
    document in its challenge. `issuer`: of the settings, in place of the document's. Raises TokenError.
    """
    near = is_private(urlsplit(resource).hostname or "")
    document = _Resource()
    for url in [told] if told else _places(resource, _PROTECTED):
        if (found := await _document(url, near=near)) is not None:
            document = _read(found, _Resource)
            break
    named = document.resource or resource
    if not covers(named, resource):
        raise TokenError("bad_answer", "the document of the resource is another resource's")
    near = near or issuer is not None  # the operator named it
    if issuer is None:
        parts = urlsplit(resource)
        issuer = next(iter(document.authorization_servers), f"{parts.scheme}://{parts.netloc}")
    own = issuer.rstrip("/") + _OPENID
    for url in (*_places(issuer, _SERVER)[:1], *_places(issuer, _OPENID)[:1], own):
        if (found := await _document(url, near=near)) is not None:
            server = _read(found, AuthorizationServer)
            break
    else:
        raise TokenError("bad_answer", "the authorization server has no document")
    if server.issuer.rstrip("/") != issuer.rstrip("/"):
        raise TokenError("bad_answer", "the document of the authorization server is another's")
    if "S256" not in server.code_challenge_methods_supported:
        raise TokenError("unusable", "the authorization server does not take PKCE with S256")
    for url in (server.authorization_endpoint, server.token_endpoint, server.registration_endpoint):
        if url:
            _address(url, near=near)
    return Protection(server, named, document.scopes_supported)


def _places(address: str, name: str) -> Sequence[str]:
    """The well-known addresses of a document: with the path of `address`, then without it."""
    parts = urlsplit(address)
    start = f"{parts.scheme}://{parts.netloc}{name}"
    return list(dict.fromkeys((start + parts.path.rstrip("/"), start)))


def covers(named: str, address: str) -> bool:
    """True if `named` is the resource at `address`, or has a shorter path on the same host."""
    one, two = urlsplit(named), urlsplit(address)
    path = one.path.rstrip("/")
    same = (one.scheme, one.netloc.lower()) == (two.scheme, two.netloc.lower())
    return same and not one.query and (two.path.rstrip("/") == path or two.path.startswith(f"{path}/"))


def _address(url: str, *, near: bool) -> str:
    """`url`, if a resource may name it. `near`: the resource itself has a private address. Raises TokenError."""
    checked(url)
    if not near and is_private(urlsplit(url).hostname or ""):
        raise TokenError("unusable", "a public server names a private address")
    return url


async def _document(url: str, *, near: bool) -> bytes | None:
    """A document; None if there is none at this address. Raises TokenError."""
    status, data = await send_form(TokenRequest(_address(url, near=near)), guarded=True)
    if 400 <= status < 500 or 300 <= status < 400:
        return None
    check_status(status, data)
    return data


def _read(data: bytes, kind: type[Any]) -> Any:
    """A document; fields without a value are left out. Raises TokenError."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
        kept = {name: value for name, value in fields.items() if value is not None}
        return _decoders[kind](msgspec.json.encode(kept))
    except (ValueError, RecursionError):
        raise TokenError("bad_answer", f"it is not the JSON of {kind.__name__.strip('_')}") from None


async def register(server: AuthorizationServer, document: Mapping[str, Any]) -> OAuthClient:
    """Register the gateway, as `document` describes it (RFC 7591). Raises TokenError."""
    if not server.registration_endpoint:
        raise TokenError("unusable", "the authorization server registers no clients: give client_id")
    known = server.token_endpoint_auth_methods_supported
    wanted = ("none", "client_secret_basic", "client_secret_post")
    way = next((one for one in wanted if one in known), wanted[0])
    asked = {**document, "token_endpoint_auth_method": way}
    status, data = await send_json(server.registration_endpoint, msgspec.json.encode(asked))
    check_status(200 if status == 201 else status, data)
    found = _read(data, _Registered)
    way = (found.token_endpoint_auth_method or way).removeprefix("client_secret_")
    return OAuthClient(found.client_id, found.client_secret, way)


def begin(found: Protection, client: OAuthClient, *, redirect: str, scope: str, state: str, verifier: str) -> str:
    """The address at which a user signs in."""
    digest = hashlib.sha256(verifier.encode()).digest()
    asked = {
        "response_type": "code",
        "client_id": client.id,
        "redirect_uri": redirect,
        "state": state,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        "resource": found.resource,
        **({"scope": scope} if scope else {}),
    }
    where = found.server.authorization_endpoint
    return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}"


def new_verifier() -> str:
    return secrets.token_urlsafe(48)


async def grant(server_endpoint: str, client: OAuthClient, form: Mapping[str, str]) -> Grant:
    """The tokens for a code or a refresh token. Raises TokenError."""
    wanted = as_client(server_endpoint, form, client.id, client.secret, client.way)
    status, data = await send_form(wanted, guarded=True)
    check_status(status, data)
    found: Grant = _read(data, Grant)
    if found.token_type.lower() != "bearer" or not PRINTABLE.fullmatch(found.access_token):
        raise TokenError("bad_answer", "its token cannot stand in a header")
    if not PRINTABLE.fullmatch(found.refresh_token):
        found.refresh_token = ""  # absent, or none that could be kept
    return found
