"""The credential of a request: a key that its API accepts, in the API's own header, or a signature of AWS.

Source of the signature: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote

from msgspec import Struct, field

from tests.doubles.answers import Headers, Refused, header

_SKEW = timedelta(minutes=5)
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/, ]+)/(?P<date>\d{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)"
    r"/aws4_request, ?SignedHeaders=(?P<signed>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


class Keys(Struct, frozen=True):
    """The accepted credentials: the key of --api-key, and AWS_SECRET_ACCESS_KEY with its id and session token."""

    key: str | None = None
    aws: Mapping[str, str] = field(default_factory=dict)  # names of environment variables


class Asked(Struct, frozen=True):
    """A request as it came."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        return header(self.headers, name)

    def shows(self, key: str, *headers: str) -> bool:
        """Whether one of the headers has the key; `authorization` has it as a bearer token."""
        for name, value in self.headers:
            if name.decode("latin-1") in headers:
                wanted = f"Bearer {key}" if name == b"authorization" else key
                if hmac.compare_digest(wanted.encode(), value):
                    return True
        return False


def openai(keys: Keys, asked: Asked) -> None:
    """Any of the headers that services with this API accept."""
    if keys.key and not asked.shows(keys.key, "authorization", "x-api-key", "api-key"):
        raise Refused(401, "Incorrect API key provided.", code="invalid_api_key")


def anthropic(keys: Keys, asked: Asked) -> None:
    """x-api-key, or otherwise a bearer token."""
    shown = "authorization" if asked.header("x-api-key") is None else "x-api-key"
    if keys.key and not asked.shows(keys.key, shown):
        given = asked.header(shown)
        raise Refused(401, "invalid x-api-key" if given else "x-api-key header is required")


def gemini(keys: Keys, asked: Asked) -> None:
    """x-goog-api-key, or `key` in the query."""
    given = asked.header("x-goog-api-key") or dict(parse_qsl(asked.query)).get("key")
    if not keys.key or (given and hmac.compare_digest(given.encode(), keys.key.encode())):
        return
    if given:
        raise Refused(400, "API key not valid. Please pass a valid API key.", code="API_KEY_INVALID")
    message = "Method doesn't allow unregistered callers (callers without established identity)."
    raise Refused(403, message + " Please use API Key or other form of API consumer identity to call this API.")


def vertex(keys: Keys, asked: Asked) -> None:
    """A bearer token, or x-goog-api-key as in express mode."""
    if keys.key and not asked.shows(keys.key, "authorization", "x-goog-api-key"):
        message = "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other"
        raise Refused(401, f"{message} valid authentication credential.", code="ACCESS_TOKEN_TYPE_UNSUPPORTED")


def bearer(keys: Keys, asked: Asked) -> None:
    if keys.key and not asked.shows(keys.key, "authorization"):
        raise Refused(401, "invalid api token")


def aws(keys: Keys, asked: Asked) -> None:
    """A bearer token, or a signature. The signature is verified if the secret is known, otherwise only its form is."""
    if keys.key is None and not keys.aws:
        return
    given = asked.header("authorization") or ""
    if given.startswith("Bearer "):
        if not keys.key or not asked.shows(keys.key, "authorization"):
            message = "Authentication failed: Please make sure your API Key is valid."
            raise Refused(403, message, code="AccessDeniedException")
        return
    if not given:
        raise Refused(403, "Missing Authentication Token", code="MissingAuthenticationTokenException")
    parts = _SIGNED.fullmatch(given)
    if parts is None or parts["service"] != "bedrock":
        message = "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' of the service bedrock."
        raise Refused(403, message, code="IncompleteSignatureException")
    moment = _moment(asked, parts["date"])
    if keys.aws:
        _verify(keys.aws, asked, parts.groupdict(), moment)


def _moment(asked: Asked, date: str) -> str:
    moment = asked.header("x-amz-date") or ""
    if not re.fullmatch(r"\d{8}T\d{6}Z", moment) or not moment.startswith(date):
        message = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP"
        raise Refused(403, message, code="InvalidSignatureException")
    return moment


def _verify(secrets: Mapping[str, str], asked: Asked, parts: Mapping[str, str], moment: str) -> None:
    identity, token = secrets.get("AWS_ACCESS_KEY_ID"), secrets.get("AWS_SESSION_TOKEN")
    if (identity and identity != parts["id"]) or (token and token != asked.header("x-amz-security-token")):
        message = "The security token included in the request is invalid."
        raise Refused(403, message, code="UnrecognizedClientException")
    if not _is_now(moment):
        raise Refused(403, f"Signature expired: {moment} is not now", code="InvalidSignatureException")
    signed = parts["signed"].split(";")
    if "host" not in signed or "x-amz-date" not in signed or (token and "x-amz-security-token" not in signed):
        raise Refused(403, "Headers that must be signed are not.", code="InvalidSignatureException")
    expected = signature(secrets["AWS_SECRET_ACCESS_KEY"], asked, parts, moment)
    if not hmac.compare_digest(expected, parts["signature"]):
        message = "The request signature we calculated does not match the signature you provided. Check your AWS Secret"
        raise Refused(403, f"{message} Access Key and signing method.", code="InvalidSignatureException")


def _is_now(moment: str) -> bool:
    try:
        then = datetime.strptime(moment + "+0000", "%Y%m%dT%H%M%SZ%z")
    except ValueError:
        return False
    return abs(datetime.now(UTC) - then) <= _SKEW


def signature(secret: str, asked: Asked, parts: Mapping[str, str], moment: str) -> str:
    """Recompute a signature of version 4. The received path is percent-encoded once more, as for all services except
    S3.
    """
    headers = "".join(f"{name}:{_joined(asked, name)}\n" for name in parts["signed"].split(";"))
    payload = hashlib.sha256(asked.body).hexdigest()
    canonical = "\n".join(
        [asked.method, quote(asked.path, safe="/-_.~"), _query(asked.query), headers, parts["signed"], payload]
    )
    scope = f"{parts['date']}/{parts['region']}/{parts['service']}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def _joined(asked: Asked, name: str) -> str:
    values = [value.decode("latin-1") for each, value in asked.headers if each == name.encode()]
    return ",".join(" ".join(value.split()) for value in values)


def _query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(sorted(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs))
