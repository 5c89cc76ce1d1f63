"""All headers, metadata and attributes between the gateway attachment, Envoy and the attempt attachment.

Headers under `PREFIX` are internal: Envoy strips them from what clients send before any filter runs, from what leaves
for a provider, from what a provider answers, and from what goes back to the client.
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

# gRPC metadata of an ext_proc stream: the attachment that is calling.
ATTACHMENT = "x-extproc-attachment"
GATEWAY, ATTEMPT, ATTACH = "gateway", "attempt", "attach"

# Request headers, from the gateway attachment to the tries.
ID = "x-extproc-id"  # the exchange's id
TARGETS = "x-extproc-targets"  # encode_targets(): the target of each try, and the consumer
EDITS = "x-extproc-edits"  # encode_edits(): the changes of each try to the body
ATTEND = "x-extproc-attend"  # the tries that need the attempt attachment: ATTEND_ALL or ATTEND_LATER
ATTEND_ALL, ATTEND_LATER = "all", "later"  # later: all but the first
BACK_OFF = "x-extproc-back-off"  # milliseconds before the second try in a row at one target
TIMEOUT = "x-extproc-timeout"  # milliseconds that a try may take to begin its answer
DIALECT = "x-extproc-dialect"  # the client's dialect, for tries that translate
SESSION = "x-extproc-mcp-session"  # the session at an MCP server that a call uses, see `mcp.servers.SessionTicket`
BOUND = "x-extproc-mcp-bound"  # most bytes of an event of a streamed result, and the message in place of a larger one
PROVIDER = "x-extproc-provider"  # attach mode only: the provider, for the owner's routes to match on

# Response header of an answer that Envoy itself gave inside the hop, in place of a provider's answer. Its value is the
# reason: connect, reset, timeout, overflow, unhealthy, credential, unsupported or other; or the code with which a try
# refused the request.
HOP = "x-extproc-hop"

# Response headers of an answer that a try translated.
TRANSLATED = "x-extproc-translated"  # present
USAGE = "x-extproc-usage"  # encode_usage(), where the answer is plain
IGNORED = "x-extproc-ignored"  # names of the client's fields that the provider's API cannot express
EVENTS_EVENT = b": x-extproc-events "  # prefix of the comment with the number of events that an event has joined
USAGE_EVENT = b": x-extproc-usage "  # prefix of the comment with encode_usage() at the end of a streamed answer

# Dynamic metadata that gives Envoy's priority_group cluster specifier the order of the tries.
ORDER_NAMESPACE = "ai.groups"
ORDER_KEY = "priority_groups"
# Dynamic metadata of a try's access log entry: id, attempt, targets, timeout.
LOG_NAMESPACE = "ai"
LOG_ID = "id"
BOUND_NAMESPACE = "ai.mcp"  # the value of BOUND, for Envoy's script

# Dynamic metadata of Envoy's jwt_authn filter, which the gateway attachment receives: claims_key(), failure_key().
JWT_NAMESPACE = "envoy.filters.http.jwt_authn"
# Attributes of a connection whose client showed a certificate. Envoy reports the first of several names of a kind.
URI_SAN = "connection.uri_san_peer_certificate"
DNS_SAN = "connection.dns_san_peer_certificate"
SUBJECT = "connection.subject_peer_certificate"
PEER_ATTRIBUTES = (URI_SAN, DNS_SAN, SUBJECT)

TRY_PREFIX = "try-"
"""A provider's internal listener, and the cluster that leads into it."""

GATEWAY_LOG = "gateway"
"""`log_name` of the public listener's gRPC access log; a try's is the name of its internal listener."""

ATTEMPT_COUNT = "x-envoy-attempt-count"
RESPONSE_ATTRIBUTES = ("upstream.request_attempt_count", "response.code_details")
UPSTREAM = "via_upstream"
"""Envoy's response code details of an answer that came through a cluster."""

TOLD = "x-ai-"
"""Prefix of the headers in which the gateway tells clients about an answer. Providers cannot set them."""
CACHE = "x-ai-cache"
"""Header of requests, see `cache.wish`, and of answers: `hit`, `miss`, `refresh` or `partial`."""
SIMILARITY = "x-ai-cache-similarity"
"""Header of answers to a question in other words: the score."""
GUARDRAILS = "x-ai-guardrails"
"""Header of requests that names guardrails to add, and of answers with those that found something: `pii:mask`."""


def internal(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The names of headers that only the gateway may set."""
    return tuple([name for name in headers if name.startswith((PREFIX, TOLD))])


"""Attributes of the answer that Envoy sends with its headers."""


def claims_key(issuer: str) -> str:
    """The metadata key of the verified claims of a token of that issuer (`JWTSettings.mark`)."""
    return f"claims-{issuer}"


def failure_key(issuer: str) -> str:
    """The metadata key of `code` and `message` of a token that this issuer does not accept."""
    return f"failure-{issuer}"


def try_cluster(provider: str) -> str:
    """The cluster of a try at `provider`."""
    return TRY_PREFIX + provider


def encode_targets(targets: Sequence[Target], consumer: str = "") -> str:
    """The value of `TARGETS`: the name of each try's target, in order, and the name of the consumer."""
    names = ",".join([_quoted(target.name) for target in targets])
    return f"{names};{_quoted(consumer)}" if consumer else names


@lru_cache(maxsize=4096)
def _quoted(name: str) -> str:
    return quote(name)


def decode_targets(value: str) -> list[str]:
    """The name of each try's target."""
    return [unquote(name) for name in value.partition(";")[0].split(",")]


def decode_consumer(value: str) -> str:
    """The name of the consumer in the value of `TARGETS`."""
    return unquote(value.partition(";")[2])


@dataclass(slots=True, frozen=True)
class Service:
    """The API and model of a try, where the request must be rewritten: another API, or a path with the model in it."""

    kind: str  # the provider's kind
    dialect: str
    model: str  # the model's name at the provider
    max_output_tokens: int | None = None
    reasoning: bool = True  # True: the model can reason
    # True: rewrite the request even in the client's own API, because it holds traces of translations
    anew: bool = False
    cache: bool = False  # True: mark the content that a prompt cache should keep
    drop_hosted: bool = False  # leave out tools that only the provider of the client's API runs
    stream: bool = False  # True: the client wants the answer event by event


@dataclass(slots=True, frozen=True)
class Edit:
    """Edits of one try to the body that the gateway attachment sent: fields to set and to remove, named as in
    `place`, and then, with a `service`, the whole request.
    """

    fields: Mapping[str, Any]
    removed: Sequence[str] = ()
    service: Service | None = None


def place(body: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], str]:
    """The object that holds a field, and the field's key in it. `a.b` names the field `b` of the object `a`."""
    outer, dot, inner = name.partition(".")
    if not dot:
        return body, outer
    value = body.get(outer)
    return value if isinstance(value, dict) else {}, inner


def changed(body: Mapping[str, Any], fields: Mapping[str, Any], removed: Sequence[str] = ()) -> dict[str, Any]:
    """A copy of `body` with some of its fields set or removed, each named as in `place`."""
    made = dict(body)
    for name, value in fields.items():
        holder, key = _holder(made, name)
        holder[key] = value
    for name in removed:
        holder, key = _holder(made, name)
        holder.pop(key, None)
    return made


def _holder(made: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The object that holds the field, a copy where it is an inner one, and the field's key in it."""
    outer, dot, inner = name.partition(".")
    if not dot:
        return made, outer
    value = made.get(outer)
    made[outer] = copy = dict(value) if isinstance(value, dict) else {}
    return copy, inner


def encode_edits(edits: Sequence[Edit]) -> str:
    """The value of `EDITS`: printable ASCII."""
    text = json.dumps([[edit.fields, edit.removed, edit.service and astuple(edit.service)] for edit in edits])
    return text.replace("\x7f", "\\u007f")  # a header must not hold DEL, and JSON leaves it unescaped


def decode_edits(value: str) -> list[Edit]:
    """The edit of each try. Raises ValueError when `value` was not made by `encode_edits`."""
    return [
        Edit(fields, removed, None if service is None else Service(*service))
        for fields, removed, service in json.loads(value)
    ]


_COUNTS = attrgetter(*(field.name for field in fields(Usage)))
_KINDS, _SHARES = map([field.name for field in fields(Usage)].index, ("kinds", "shares"))
_DEFAULTS = _COUNTS(Usage())
_ALWAYS = 5


def encode_usage(usage: Usage) -> bytes:
    """The value of `USAGE`: what a translation knows of the usage and the client's dialect cannot express."""
    return json.dumps(_packed(usage)).encode()


def decode_usage(value: bytes) -> Usage:
    """Raises ValueError or TypeError when `value` was not made by `encode_usage`."""
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
