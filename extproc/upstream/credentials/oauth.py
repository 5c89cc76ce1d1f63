"""Short-lived tokens of Google and Entra: the request, the answer, and the exchange.

Sources: https://developers.google.com/identity/protocols/oauth2/service-account (RFC 7523),
https://cloud.google.com/compute/docs/metadata/overview,
https://cloud.google.com/iam/docs/workload-identity-federation-with-other-providers (RFC 8693),
https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken,
https://learn.microsoft.com/en-us/entra/identity-platform/v2-oauth2-client-creds-grant-flow,
https://learn.microsoft.com/en-us/entra/identity/managed-identities-azure-resources/how-to-use-vm-token (IMDS),
https://learn.microsoft.com/en-us/azure/app-service/overview-managed-identity#rest-endpoint-reference.

google-auth 2.62 and msal 1.39 were tried in place of this file, against the hostile endpoints of its tests:

                                        google-auth                 msal                        this file
    one byte each 0.5 s, timeout 2 s    50 s, while bytes come      50 s, while bytes come      2 s
    an answer of 131 MB                 read whole                  read whole, then logged     64 KiB read
    a redirect (307)                    key's signature sent there  client secret sent there    refused
    proxies of the environment          used                        used                        not used
    status 503                          3 requests, sleeps 3 s      1 request                   1 request
    requests for a token                1                           2 (discovery first)         1
    endpoint's own text in the error    yes                         yes                         no
    installed, imported                 24 MB, 20 MB of memory    23 MB, 11 MB of memory    18 MB, 9 MB (Google)

Neither can be cancelled; both block a thread. They would replace some 50 lines here. A test compares the signed request
with google-auth's.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from extproc.upstream.providers import METADATA, AzureCredentials, Credentials
from extproc.wire.outbound.client import AnswerError, send
from extproc.words.values import Secret, is_loopback, is_offline

_TIMEOUT = 10.0  # seconds until a token must be there
_LARGEST = 64 << 10  # most bytes of an answer
_LONGEST = 86400.0  # longest lifetime of a token that is believed, seconds

_GOOGLE = "https://oauth2.googleapis.com/token"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
_IMDS = "http://169.254.169.254"
_IMDS_PATH = "/metadata/identity/oauth2/token"
_ENTRA = "https://login.microsoftonline.com"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_JWT = re.compile(r"[\w-]+\.([\w-]+)\.[\w-]+", re.ASCII)
PRINTABLE = re.compile(r"[\x21-\x7e]{1,16384}")
"""Tokens and addresses that can stand in a header."""
# Codes of refusals that may be logged (RFC 6749, section 5.2); the endpoint's own text is never logged.
_REASONS = (
    *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
    *("invalid_scope", "temporarily_unavailable", "server_error"),
)


LONGEST_PAUSE = 60.0
"""Longest pause between two failing requests, seconds."""
_EARLY = 225.0  # seconds before a token's end to renew it; Google's metadata server does so only in the last 240


@dataclass(slots=True, frozen=True)
class OAuthToken:
    value: str = field(repr=False)
    expires: float
    """Seconds since the epoch."""

    def renewal(self, now: float) -> float:
        """The time at which to request the next token, for a token obtained at `now`. The time is randomised to spread
        replicas.
        """
        return self.expires - min(_EARLY, (self.expires - now) / 4) * random.uniform(0.8, 1)  # noqa: S311 - no secret


def unverified_claims(token: str) -> Any:
    """The claims of a token, unverified; None if it is no JWT."""
    if (found := _JWT.fullmatch(token)) is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
    except (ValueError, RecursionError):
        return None


def pause_after(failures: int) -> float:
    """Seconds to wait after a number of failed requests in a row, randomised to spread replicas."""
    return min(LONGEST_PAUSE, 2.0 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311 - no secret


class TokenError(Exception):
    """A failure to get a token. The outcome is one of unusable (the secret or key file), unreachable, timeout, refused
    (4xx), failed (another status), bad_answer. The detail says more, without any text from outside.
    """

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(f"{outcome}: {detail}")
        self.outcome = outcome
        self.detail = detail


# --- the request


@dataclass(slots=True, frozen=True)
class TokenRequest:
    """A request for a token: a POST with a form, or a GET without one. `then` is the address where that token is
    exchanged for one of a service account.
    """

    url: str
    form: Mapping[str, str] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    then: str = ""


def as_client(url: str, form: Mapping[str, str], id: str, secret: str, way: str) -> TokenRequest:
    """A request of the client `id` to a token endpoint. `way` of RFC 6749, section 2.3: basic, post, or none."""
    if way != "basic":
        return TokenRequest(url, {**form, "client_id": id, **({"client_secret": secret} if way == "post" else {})})
    both = f"{quote(id, safe='')}:{quote(secret, safe='')}"
    return TokenRequest(url, form, {"authorization": f"Basic {base64.b64encode(both.encode()).decode()}"})


def ask(credentials: Credentials, secret: str, now: float) -> TokenRequest:
    """The request for a token, with the `secret` behind the reference. Raises TokenError."""
    if credentials.azure is not None:
        return (_ask_machine if credentials.azure.managed_identity else _ask_entra)(credentials.azure, secret)
    if credentials.google != METADATA:
        return _ask_google(secret, now)
    host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
    return TokenRequest(checked(f"http://{host}{_METADATA_PATH}", plain=True), headers={"metadata-flavor": "Google"})


def problem(credentials: Credentials, secret: str) -> str | None:
    """A fault of the secret or the environment that shows without a request; None without a fault."""
    try:
        ask(credentials, secret, time.time())
    except TokenError as error:
        return error.detail
    return None


def checked(url: str, *, plain: bool = False) -> str:
    """`url`, if it is https, http on a loopback address, or http with `plain`. Raises TokenError."""
    try:
        parts = urlsplit(url)
        wrong = not parts.hostname or parts.port == 0 or parts.username is not None
    except ValueError:
        wrong = True
    if wrong or not PRINTABLE.fullmatch(url):
        raise TokenError("unusable", "the address of the token endpoint is not a URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and (plain or is_loopback(parts.hostname or ""))):
        raise TokenError("unusable", "the token endpoint is not https")
    return url


def _ask_entra(azure: AzureCredentials, secret: str) -> TokenRequest:
    authority = (os.environ.get("AZURE_AUTHORITY_HOST") or _ENTRA).rstrip("/")
    authority = authority if "://" in authority else f"https://{authority}"
    tenant, client = azure.tenant or "", azure.client_id or ""
    form = {"grant_type": "client_credentials", "client_id": client, "scope": azure.scope}
    if azure.client_secret is not None:
        form["client_secret"] = secret
    else:
        form |= {"client_assertion_type": _ASSERTION, "client_assertion": secret}
    return TokenRequest(checked(f"{authority}/{quote(tenant, safe='')}/oauth2/v2.0/token"), form)


def _ask_machine(azure: AzureCredentials, _secret: str) -> TokenRequest:
    """Ask for the token of a managed identity: the place that App Service names, or the metadata server of a VM."""
    query = {"resource": azure.scope.removesuffix("/.default")}
    if azure.client_id is not None:
        query["client_id"] = azure.client_id
    own, key = os.environ.get("IDENTITY_ENDPOINT"), os.environ.get("IDENTITY_HEADER")
    if own and key:
        url, version, headers = own, "2019-08-01", {"x-identity-header": key}
    else:
        host = os.environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or _IMDS
        url, version, headers = host.rstrip("/") + _IMDS_PATH, "2018-02-01", {"metadata": "true"}
    return TokenRequest(checked(f"{url}?{urlencode({'api-version': version, **query})}", plain=True), headers=headers)


class _ServiceAccount(msgspec.Struct, tag_field="type", tag="service_account"):
    client_email: str
    private_key: str
    private_key_id: str = ""
    token_uri: str = _GOOGLE


class _Format(msgspec.Struct):
    type: Literal["text", "json"] = "text"
    subject_token_field_name: str = ""


class _Source(msgspec.Struct):
    file: str
    format: _Format = msgspec.field(default_factory=_Format)


class _ExternalAccount(msgspec.Struct, tag_field="type", tag="external_account"):
    """Workload identity federation: another issuer's token, in a file, is exchanged for one of Google."""

    audience: str
    subject_token_type: str
    token_url: str
    credential_source: _Source
    service_account_impersonation_url: str = ""


_account: Any = msgspec.json.Decoder(_ServiceAccount | _ExternalAccount).decode


def _ask_google(secret: str, now: float) -> TokenRequest:
    try:
        account = _account(secret.encode())
    except (ValueError, RecursionError):
        message = "not the key file (JSON) of a service account, nor of an external_account with a file as its source"
        raise TokenError("unusable", message) from None
    if isinstance(account, _ExternalAccount):
        return _ask_exchange(account)
    url = checked(account.token_uri)
    grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    return TokenRequest(url, {"grant_type": grant, "assertion": _signed(account, int(now))})


def _ask_exchange(account: _ExternalAccount) -> TokenRequest:
    """Ask Google's Security Token Service to exchange the token in the file. The file is read anew each time."""
    source, token = account.credential_source, Secret("file", account.credential_source.file).read()
    if token and source.format.type == "json" and not is_offline():
        try:
            token = msgspec.json.decode(token, type=dict[str, Any])[source.format.subject_token_field_name]
        except (ValueError, RecursionError, KeyError):
            token = None
    if not isinstance(token, str) or not token:
        raise TokenError("unusable", "the file of its credential_source has no token")
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": account.audience,
        "scope": _SCOPE,
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token_type": account.subject_token_type,
        "subject_token": token,
    }
    then = account.service_account_impersonation_url
    return TokenRequest(checked(account.token_url), form, then=checked(then) if then else "")


def _signed(account: _ServiceAccount, now: int) -> str:
    """A JSON web token, signed with RS256."""
    # cryptography takes 7 MB, and only service accounts sign.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    head = {"alg": "RS256", "typ": "JWT"} | ({"kid": account.private_key_id} if account.private_key_id else {})
    claims = {"iss": account.client_email, "scope": _SCOPE, "aud": _GOOGLE, "iat": now, "exp": now + 3600}
    text = b".".join(_base64(msgspec.json.encode(part)) for part in (head, claims))
    try:
        key = load_pem_private_key(account.private_key.encode(), None)
        if not isinstance(key, RSAPrivateKey):
            raise TypeError
        signature = key.sign(text, PKCS1v15(), SHA256())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TokenError("unusable", "its private_key is no RSA key in PEM") from None
    return b".".join((text, _base64(signature))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


# --- the answer


class _Grant(msgspec.Struct):
    access_token: str
    expires_in: float | None = None
    expires_on: float | None = None
    """Epoch seconds: App Service tells no `expires_in`."""
    token_type: str = "Bearer"  # noqa: S105


class _Impersonated(msgspec.Struct):
    accessToken: str  # noqa: N815 - Google's name
    expireTime: datetime  # noqa: N815


class _Problem(msgspec.Struct):
    error: str = ""
    error_codes: Sequence[int] = ()


_grant = msgspec.json.Decoder(_Grant, strict=False).decode  # not strict: `expires_in` may be text
_impersonated = msgspec.json.Decoder(_Impersonated).decode
_problem = msgspec.json.Decoder(_Problem).decode


def read(status: int, body: bytes, now: float) -> OAuthToken:
    """The token in an answer to a request made at `now`. Raises TokenError."""
    check_status(status, body)
    try:
        grant = _grant(body)
    except (ValueError, RecursionError):
        raise TokenError("bad_answer", "it is not JSON with access_token and expires_in") from None
    left = grant.expires_in
    if left is None:
        left = (grant.expires_on or 0.0) - now
    return _token(grant.access_token, left, now, grant.token_type)


def read_impersonated(status: int, body: bytes, now: float) -> OAuthToken:
    """The token of a service account in an answer to a request made at `now`. Raises TokenError."""
    check_status(status, body)
    try:
        found = _impersonated(body)
    except (ValueError, RecursionError):
        raise TokenError("bad_answer", "it is not JSON with accessToken and expireTime") from None
    return _token(found.accessToken, found.expireTime.timestamp() - now, now)


def check_status(status: int, body: bytes) -> None:
    if status != 200:
        raise TokenError("refused" if 400 <= status < 500 else "failed", f"status {status}{_reason(body)}")


def _token(value: str, left: float, now: float, kind: str = "Bearer") -> OAuthToken:
    """A token that is valid for `left` seconds from `now` on. Raises TokenError."""
    if kind.lower() != "bearer" or not PRINTABLE.fullmatch(value):
        raise TokenError("bad_answer", "its token cannot stand in a header")
    if not left > 0:
        raise TokenError("bad_answer", "its token has expired, or does not tell when it does")
    return OAuthToken(value, now + min(left, _LONGEST))


def _reason(body: bytes) -> str:
    """The endpoint's error code, if it is a standard one, and Entra's AADSTS numbers."""
    try:
        told = _problem(body)
    except (ValueError, RecursionError):
        return ""
    words = [told.error] if told.error in _REASONS else []
    words += [f"AADSTS{code}" for code in told.error_codes[:3] if 0 < code < 10**8]
    return "".join(f", {word}" for word in words)


# --- over the network


async def fetch(credentials: Credentials, secret: str, now: float) -> OAuthToken:
    """Request a token with `secret`. Raises TokenError. Nothing here blocks the event loop."""
    wanted = await asyncio.to_thread(ask, credentials, secret, now)
    token = await request_token(wanted, now)
    if not wanted.then:
        return token
    headers = {"authorization": f"Bearer {token.value}", "content-type": "application/json"}
    body = msgspec.json.encode({"scope": [_SCOPE], "lifetime": "3600s"})
    return read_impersonated(*await _send(wanted.then, body, headers), now)


async def request_token(wanted: TokenRequest, now: float) -> OAuthToken:
    """The token of an endpoint's first answer; `then` is not asked. Raises TokenError."""
    return read(*await send_form(wanted), now)


async def send_form(wanted: TokenRequest, *, guarded: bool = False) -> tuple[int, bytes]:
    """The status and body of an answer. `guarded`: see `client.send`. Raises TokenError."""
    body, headers = None, wanted.headers
    if wanted.form is not None:
        body = urlencode(wanted.form).encode()
        headers = {**headers, "content-type": "application/x-www-form-urlencoded"}
    return await _send(wanted.url, body, headers, guarded=guarded)


async def send_json(url: str, body: bytes) -> tuple[int, bytes]:
    """The status and body of the answer to a JSON document, from an address that is not the operator's. Raises
    TokenError.
    """
    return await _send(url, body, {"content-type": "application/json"}, guarded=True)


async def _send(
    url: str, body: bytes | None, headers: Mapping[str, str], *, guarded: bool = False
) -> tuple[int, bytes]:
    """The status and body of an answer. Raises TokenError."""
    try:
        return await send(url, body, headers, timeout=_TIMEOUT, most=_LARGEST, guarded=guarded)
    except TimeoutError:
        raise TokenError("timeout", f"no answer in {_TIMEOUT:.0f} s") from None
    except (OSError, ValueError) as error:
        raise TokenError("unreachable", type(error).__name__) from None
    except AnswerError:
        raise TokenError("bad_answer", "it is not HTTP") from None
