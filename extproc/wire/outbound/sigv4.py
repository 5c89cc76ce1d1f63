"""Signature Version 4 of AWS, for requests that this process sends itself. Envoy signs those to providers.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(slots=True, frozen=True)
class AwsKey:
    id: str
    secret: str = field(repr=False)
    session: str = field(default="", repr=False)


_JSON: Mapping[str, str] = {"content-type": "application/json"}


def signed(
    key: AwsKey,
    host: str,
    path: str,
    body: bytes,
    *,
    region: str,
    service: str,
    now: datetime,
    method: str = "POST",
    given: Mapping[str, str] = _JSON,
) -> Mapping[str, str]:
    """The headers of a request to `path`, which is percent-encoded and has no query: `given`, by lower-case name, and a
    signature over them all. `now` is in UTC.
    """
    moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {**given, "host": host, "x-amz-date": moment}
    if key.session:
        headers["x-amz-security-token"] = key.session
    if service == "s3":
        headers["x-amz-content-sha256"] = _hash(body)
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    # Every service but S3 signs a path that is encoded once more.
    signed_path = path if service == "s3" else quote(path, safe="/~")
    request = f"{method}\n{signed_path}\n\n{lines}\n{names}\n{_hash(body)}"
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = f"{_ALGORITHM}\n{moment}\n{scope}\n{_hash(request.encode())}"
    step = f"AWS4{key.secret}".encode()
    for word in (day, region, service, "aws4_request"):
        step = hmac.digest(step, word.encode(), "sha256")
    signature = hmac.digest(step, to_sign.encode(), "sha256").hex()
    del headers["host"]  # the client adds `host` itself
    headers["authorization"] = f"{_ALGORITHM} Credential={key.id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return headers


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
