"""Refusals: the gateway's own error answers, one line each.

`status`, `type` and `code` are stable; clients and dashboards rely on them. A message names the rule that refused, and
the remedy. Any other failure inside the gateway is a bug and fails closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_LATER = (408, 409, 425, 429)
"""Statuses of client errors that a later retry may not get."""


@dataclass(slots=True, frozen=True)
class Kind:
    status: int
    type: str
    code: str

    @property
    def advice(self) -> Mapping[str, str]:
        """Headers that tell a client whether to retry the request."""
        return FINAL if self in _FINAL else advice(self.status)


INVALID_JSON = Kind(400, "invalid_request_error", "invalid_json")
INVALID_REQUEST = Kind(400, "invalid_request_error", "invalid_request")
GUARDRAIL_BLOCKED = Kind(400, "invalid_request_error", "guardrail_blocked")
UNSUPPORTED_BY_TARGETS = Kind(400, "invalid_request_error", "unsupported_by_targets")
UNBOUNDED_INPUT = Kind(400, "invalid_request_error", "unbounded_input")
FOREIGN_OBJECT = Kind(400, "invalid_request_error", "foreign_object")
EXCEEDS_LIMIT = Kind(400, "invalid_request_error", "request_exceeds_limit")
HEADER_MISMATCH = Kind(400, "invalid_request_error", "header_mismatch")
VERSION_UNSUPPORTED = Kind(400, "invalid_request_error", "version_unsupported")
CAPABILITY_MISSING = Kind(400, "invalid_request_error", "capability_missing")
INVALID_PARAMS = Kind(400, "invalid_request_error", "invalid_params")
METHOD_UNKNOWN = Kind(404, "invalid_request_error", "method_unknown")
TOOL_NOT_FOUND = Kind(404, "invalid_request_error", "tool_not_found")
MISSING_KEY = Kind(401, "authentication_error", "missing_key")
INVALID_KEY = Kind(401, "authentication_error", "invalid_key")
EXPIRED_KEY = Kind(401, "authentication_error", "expired_key")
BUDGET_EXCEEDED = Kind(402, "insufficient_quota", "budget_exceeded")
APPROVAL_REQUIRED = Kind(402, "insufficient_quota", "approval_required")
APPROVAL_DENIED = Kind(402, "insufficient_quota", "approval_denied")
MODEL_NOT_ALLOWED = Kind(403, "permission_error", "model_not_allowed")
ORIGIN_NOT_ALLOWED = Kind(403, "permission_error", "origin_not_allowed")
TOOL_CHANGED = Kind(403, "permission_error", "tool_changed")
TOOL_WITHHELD = Kind(403, "permission_error", "tool_withheld")
UNTRUSTED_CONTEXT = Kind(403, "permission_error", "untrusted_context")
SIGN_IN_REQUIRED = Kind(403, "permission_error", "sign_in_required")
PROFILE_NOT_ALLOWED = Kind(403, "permission_error", "profile_not_allowed")
MODEL_NOT_FOUND = Kind(404, "invalid_request_error", "model_not_found")
PATH_NOT_FOUND = Kind(404, "invalid_request_error", "path_not_found")
OBJECT_NOT_FOUND = Kind(404, "invalid_request_error", "object_not_found")
PROFILE_NOT_FOUND = Kind(404, "invalid_request_error", "profile_not_found")
SESSION_NOT_FOUND = Kind(404, "invalid_request_error", "session_not_found")
METHOD_NOT_ALLOWED = Kind(405, "invalid_request_error", "method_not_allowed")
BODY_TOO_LARGE = Kind(413, "invalid_request_error", "body_too_large")
UNSUPPORTED_ENCODING = Kind(415, "invalid_request_error", "unsupported_encoding")
RATE_LIMITED = Kind(429, "rate_limit_error", "rate_limited")
POOL_FULL = Kind(429, "rate_limit_error", "pool_full")
RUN_LOOPING = Kind(429, "rate_limit_error", "run_looping")
PROVIDER_CREDENTIAL_REJECTED = Kind(502, "api_error", "provider_credential_rejected")
PROVIDER_BAD_ANSWER = Kind(502, "api_error", "provider_bad_answer")
MCP_CREDENTIAL_REJECTED = Kind(502, "api_error", "mcp_credential_rejected")
RESULT_TOO_LARGE = Kind(502, "api_error", "result_too_large")
MCP_BAD_ANSWER = Kind(502, "api_error", "mcp_bad_answer")
STORE_UNAVAILABLE = Kind(503, "api_error", "store_unavailable")
GUARDRAIL_UNAVAILABLE = Kind(503, "api_error", "guardrail_unavailable")
NO_PROVIDER_AVAILABLE = Kind(503, "api_error", "no_provider_available")
OVERLOADED = Kind(503, "api_error", "overloaded")
GATEWAY_RESTARTING = Kind(503, "api_error", "gateway_restarting")
MCP_SERVER_UNAVAILABLE = Kind(503, "api_error", "mcp_server_unavailable")
MCP_SERVER_TIMEOUT = Kind(504, "api_error", "mcp_server_timeout")
PROVIDER_TIMEOUT = Kind(504, "api_error", "provider_timeout")

ALL = tuple(value for value in list(globals().values()) if isinstance(value, Kind))

# Refusals that end a client's retries, whatever their status.
_FINAL = frozenset((PROVIDER_CREDENTIAL_REJECTED, RUN_LOOPING))

FINAL: Mapping[str, str] = {"x-should-retry": "false"}
"""Ends the retries of clients. The SDKs that Stainless generates (OpenAI's, Anthropic's and others) heed it before the
status: `_should_retry` in openai-python/src/openai/_base_client.py. Claude Code repeats 401 ten times without it:
https://github.com/musistudio/claude-code-router/issues/490
"""
_AGAIN: Mapping[str, str] = {"retry-after": "1"}
_NO_ADVICE: Mapping[str, str] = {}


def advice(status: int) -> Mapping[str, str]:
    """Headers for an error of this status: they tell a client whether to retry."""
    if 400 <= status < 500 and status not in _LATER:
        return FINAL
    return _AGAIN if status in (429, 503) else _NO_ADVICE


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """Ends the exchange with an answer in the client's dialect.

    `param` names the faulty field of the body; `headers` are added to the answer (Retry-After, x-ratelimit-…).
    """

    def __init__(
        self, kind: Kind, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
