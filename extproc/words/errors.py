"""Refusals: every answer the gateway gives in its own name, one line each.

`status`, `type` and `code` are stable; clients and dashboards rely on them. A message names the rule that refused, and
the remedy. Any other failure inside the gateway is a bug and fails closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Kind:
    status: int
    type: str
    code: str


INVALID_JSON = Kind(400, "invalid_request_error", "invalid_json")
INVALID_REQUEST = Kind(400, "invalid_request_error", "invalid_request")
GUARDRAIL_BLOCKED = Kind(400, "invalid_request_error", "guardrail_blocked")
UNSUPPORTED_BY_TARGETS = Kind(400, "invalid_request_error", "unsupported_by_targets")
UNBOUNDED_INPUT = Kind(400, "invalid_request_error", "unbounded_input")
MISSING_KEY = Kind(401, "authentication_error", "missing_key")
INVALID_KEY = Kind(401, "authentication_error", "invalid_key")
EXPIRED_KEY = Kind(401, "authentication_error", "expired_key")
BUDGET_EXCEEDED = Kind(402, "insufficient_quota", "budget_exceeded")
APPROVAL_REQUIRED = Kind(402, "insufficient_quota", "approval_required")
MODEL_NOT_ALLOWED = Kind(403, "permission_error", "model_not_allowed")
MODEL_NOT_FOUND = Kind(404, "invalid_request_error", "model_not_found")
PATH_NOT_FOUND = Kind(404, "invalid_request_error", "path_not_found")
METHOD_NOT_ALLOWED = Kind(405, "invalid_request_error", "method_not_allowed")
BODY_TOO_LARGE = Kind(413, "invalid_request_error", "body_too_large")
UNSUPPORTED_ENCODING = Kind(415, "invalid_request_error", "unsupported_encoding")
RATE_LIMITED = Kind(429, "rate_limit_error", "rate_limited")
PROVIDER_CREDENTIAL_REJECTED = Kind(502, "api_error", "provider_credential_rejected")
PROVIDER_BAD_ANSWER = Kind(502, "api_error", "provider_bad_answer")
STORE_UNAVAILABLE = Kind(503, "api_error", "store_unavailable")
NO_PROVIDER_AVAILABLE = Kind(503, "api_error", "no_provider_available")
OVERLOADED = Kind(503, "api_error", "overloaded")
PROVIDER_TIMEOUT = Kind(504, "api_error", "provider_timeout")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Kind))


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """Ends the exchange with an answer in the client's dialect.

    `param` names the field of the body at fault; `headers` are added to the answer (Retry-After, x-ratelimit-…).
    """

    def __init__(
        self, kind: Kind, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
