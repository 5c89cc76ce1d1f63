"""Headers, metadata and attributes between the gateway attachment, Envoy and the attempt attachment.

Headers under `PREFIX` are internal. Envoy strips them from a client's request before any filter runs, from a provider's
request, from its answer, and from the client's answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any
from urllib.parse import quote, unquote

from extproc.words.exchange import Kinds, Target, Usage

PREFIX = "x-extproc-"

# gRPC metadata of an ext_proc stream; it names the calling attachment.
ANSWER_SECONDS = 10.0
"""Time in which Envoy expects the processor's answer to a message, unless the processor asks for more."""
ATTACHMENT = "x-extproc-attachment"
GATEWAY, ATTEMPT, ATTACH = "gateway", "attempt", "attach"

# Request headers from the gateway attachment to the tries.
ID = "x-extproc-id"  # id of the exchange
TARGETS = "x-extproc-targets"  # encode_targets(): each try's target, and the consumer
EDITS = "x-extproc-edits"  # encode_edits(): each try's changes to the body
ATTEND = "x-extproc-attend"  # tries that need the attempt attachment: ATTEND_ALL or ATTEND_LATER
ATTEND_ALL, ATTEND_LATER = "all", "later"  # ATTEND_LATER: all tries but the first
BACK_OFF = "x-extproc-back-off"  # milliseconds before the second consecutive try at a target
TIMEOUT = "x-extproc-timeout"  # milliseconds until a try's answer must begin
DIALECT = "x-extproc-dialect"  # client's dialect, for tries that translate
SESSION = "x-extproc-mcp-session"  # session at an MCP server for a call, see `mcp.servers.SessionTicket`
# Most bytes of an event in a streamed result, and the message that replaces a larger event.
BOUND = "x-extproc-mcp-bound"
ENDPOINTS = "x-extproc-endpoints"  # endpoint of a pool for each try, `ip:port,,ip:port`; empty: Envoy chooses
BEHALF = "x-extproc-mcp-behalf"  # the user's credential for an MCP server with `auth`, for `authorization`
PROVIDER = "x-extproc-provider"  # provider, only in attach mode: the Envoy owner's routes match it

# Response header of an answer that Envoy wrote inside the hop in a provider's place. Its value is the reason: connect,
# reset, timeout, overflow, unhealthy, credential, unsupported or other; or the code with which a try refused the
# request.
HOP = "x-extproc-hop"

ENDPOINT = "x-extproc-endpoint"  # response header: the endpoint of a pool that got the try

# Response headers of an answer translated by a try.
TRANSLATED = "x-extproc-translated"  # present for any value
USAGE = "x-extproc-usage"  # encode_usage(), for a plain answer
IGNORED = "x-extproc-ignored"  # names of the client's fields that the provider's API cannot express
EVENTS_EVENT = b": x-extproc-events "  # prefix of a comment with the number of events that one event joins
USAGE_EVENT = b": x-extproc-usage "  # prefix of a comment with encode_usage(), at the end of a stream

# Dynamic metadata: the order of the tries, for Envoy's priority_group cluster specifier.
ORDER_NAMESPACE = "ai.groups"
ORDER_KEY = "priority_groups"
# Dynamic metadata for a try's access log entry: id, attempt, targets, timeout.
LOG_NAMESPACE = "ai"
LOG_ID = "id"
BOUND_NAMESPACE = "ai.mcp"  # value of BOUND, for Envoy's script
# The endpoint of a try, for Envoy's override_host policy. Source: the endpoint-picker protocol of the Gateway API.
LB_NAMESPACE, DESTINATION = "envoy.lb", "x-gateway-destination-endpoint"
SERVED = f"{DESTINATION}-served"  # key of the same namespace: the endpoint that answered

# Prefixes of the paths of MCP profiles, of their OAuth documents (RFC 9728), and where users sign in at MCP servers.
MCP_PATH, MCP_DOCUMENT_PATH = "/mcp/", "/.well-known/oauth-protected-resource"
MCP_SIGN_IN_PATH = "/mcp-sign-in/"

# Dynamic metadata of Envoy's jwt_authn filter for the gateway attachment: claims_key(), failure_key().
JWT_NAMESPACE = "envoy.filters.http.jwt_authn"
# Attributes of a connection with a client certificate. Envoy reports the first name of each kind.
URI_SAN = "connection.uri_san_peer_certificate"
DNS_SAN = "connection.dns_san_peer_certificate"
SUBJECT = "connection.subject_peer_certificate"
PEER_ATTRIBUTES = (URI_SAN, DNS_SAN, SUBJECT)

TRY_PREFIX = "try-"
"""Prefix of a provider's internal listener, and of the cluster that leads to it."""

GATEWAY_LOG = "gateway"
"""`log_name` of the public listener's gRPC access log. A try's `log_name` is its internal listener."""

ATTEMPT_COUNT = "x-envoy-attempt-count"
RESPONSE_ATTRIBUTES = ("upstream.request_attempt_count", "response.code_details")
UPSTREAM = "via_upstream"
"""Envoy's response code details of an answer from a cluster."""

TOLD = "x-ai-"
"""Prefix of the gateway's response headers for clients. Providers cannot set them."""
CACHE = "x-ai-cache"
"""Header of requests, see `cache.wish`, and of answers: `hit`, `miss`, `refresh` or `partial`."""
SIMILARITY = "x-ai-cache-similarity"
"""Header of a cached answer to a similar question: the similarity score."""
GUARDRAILS = "x-ai-guardrails"
"""Header of requests with additional guardrails, and of answers with the guardrails that found a match: `pii:mask`."""


def internal(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Names of headers that only the gateway may set."""
    return tuple([name for name in headers if name.startswith((PREFIX, TOLD))])


def claims_key(issuer: str) -> str:
    """Metadata key of the verified claims of this issuer's token (`JWTSettings.mark`)."""
    return f"claims-{issuer}"


def failure_key(issuer: str) -> str:
    """Metadata key of `code` and `message` for a token that this issuer does not accept."""
    return f"failure-{issuer}"


def pool_name(provider: str) -> str:
    """Name of the endpoints of a provider's pool, as Envoy asks for them."""
    return f"pool-{provider}"


def try_cluster(provider: str) -> str:
    """Cluster of a try at `provider`."""
    return TRY_PREFIX + provider


def encode_targets(targets: Sequence[Target], consumer: str = "") -> str:
    """Value of `TARGETS`: the target's name for each try, in order, and the consumer's name."""
    names = ",".join([_quoted(target.name) for target in targets])
    return f"{names};{_quoted(consumer)}" if consumer else names


@lru_cache(maxsize=4096)
def _quoted(name: str) -> str:
    return quote(name)


@lru_cache(maxsize=1024)
def decode_targets(value: str) -> tuple[Sequence[str], str]:
    """The target's name for each try, and the consumer's name, in the value of `TARGETS`."""
    names, _, consumer = value.partition(";")
    return tuple([unquote(name) for name in names.split(",")]), unquote(consumer)


@dataclass(slots=True, frozen=True)
class Service:
    """API and model of a try whose request must be rewritten: for another API, or for a path with the model."""

    kind: str  # provider's kind
    dialect: str
    model: str  # model's name at the provider
    max_output_tokens: int | None = None
    reasoning: bool = True  # True: the model can reason
    # True: rewrite the request even for the client's own API, because it holds traces of translations
    anew: bool = False
    cache: bool = False  # True: mark content for a prompt cache
    drop_hosted: bool = False  # True: leave out tools that only the client's API runs
    stream: bool = False  # True: the client wants a stream


@dataclass(slots=True, frozen=True)
class Edit:
    """One try's edits to the body from the gateway attachment: fields to set and remove, named as in `place`. A
    `service` then rewrites the whole request.
    """

    fields: Mapping[str, Any]
    removed: Sequence[str] = ()
    service: Service | None = None


def place(body: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str]:
    """The object that holds a field, and the key there. `a.b` names field `b` of object `a`."""
    outer, dot, inner = name.partition(".")
    if not dot:
        return body, outer
    value = body.get(outer)
    return value if isinstance(value, dict) else {}, inner


def changed(body: Mapping[str, Any], fields: Mapping[str, Any], removed: Sequence[str] = ()) -> dict[str, Any]:
    """A copy of `body` with some fields set or removed, named as in `place`."""
    made = dict(body)
    for name, value in fields.items():
        holder, key = _holder(made, name)
        holder[key] = value
    for name in removed:
        holder, key = _holder(made, name)
        holder.pop(key, None)
    return made


def _holder(made: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The object that holds a field, copied if it is an inner one, and the key there."""
    outer, dot, inner = name.partition(".")
    if not dot:
        return made, outer
    value = made.get(outer)
    made[outer] = copy = dict(value) if isinstance(value, dict) else {}
    return copy, inner


def encode_edits(edits: Sequence[Edit]) -> str:
    """Value of `EDITS`: printable ASCII."""
    text = json.dumps([[edit.fields, edit.removed, edit.service and astuple(edit.service)] for edit in edits])
    return text.replace("\x7f", "\\u007f")  # JSON leaves DEL unescaped, and a header must not hold it


def decode_edits(value: str) -> list[Edit]:
    """The edit of each try. Raises ValueError for a value that `encode_edits` did not make."""
    return [
        Edit(fields, removed, None if service is None else Service(*service))
        for fields, removed, service in json.loads(value)
    ]


_COUNTS = attrgetter(*(field.name for field in fields(Usage)))
_KINDS, _SHARES = map([field.name for field in fields(Usage)].index, ("kinds", "shares"))
_DEFAULTS = _COUNTS(Usage())
_ALWAYS = 5


def encode_usage(usage: Usage) -> bytes:
    """Value of `USAGE`: a translation's usage, beyond what the client's dialect can express."""
    return json.dumps(_packed(usage)).encode()


def decode_usage(value: bytes) -> Usage:
    """The usage in a value of `USAGE`. Raises ValueError or TypeError for a value that `encode_usage` did not make."""
    return _unpacked(json.loads(value))


def _packed(usage: Usage) -> list[Any]:
    counts = list(_COUNTS(usage))
    while len(counts) > _ALWAYS and counts[-1] == _DEFAULTS[len(counts) - 1]:
        counts.pop()
    if usage.kinds is not None:
        counts[_KINDS] = astuple(usage.kinds)
    if usage.shares is not None:
        counts[_SHARES] = {model: _packed(part) for model, part in usage.shares.items()}
    return counts


def _unpacked(counts: list[Any]) -> Usage:
    if len(counts) > _KINDS and counts[_KINDS] is not None:
        counts[_KINDS] = Kinds(*counts[_KINDS])
    if len(counts) > _SHARES and counts[_SHARES] is not None:
        counts[_SHARES] = {model: _unpacked(part) for model, part in counts[_SHARES].items()}
    return Usage(*counts)
