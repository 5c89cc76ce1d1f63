"""What the gateway attachment, Envoy and the attempt attachment tell each other. All of it is in this file.

Headers under `PREFIX` are internal: Envoy strips them from what clients send before any filter runs, from what leaves
for a provider, from what a provider answers, and from what goes back to the client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from extproc.exchange import Target

PREFIX = "x-extproc-"

# gRPC metadata of an ext_proc stream: which attachment is calling.
ATTACHMENT = "x-extproc-attachment"
GATEWAY, ATTEMPT, ATTACH = "gateway", "attempt", "attach"

# Request headers, from the gateway attachment to the tries.
ID = "x-extproc-id"  # the exchange's id
TARGETS = "x-extproc-targets"  # encode_targets(): the target of each try
EDITS = "x-extproc-edits"  # encode_edits(): what each try changes in the body
ATTEND = "x-extproc-attend"  # which tries need the attempt attachment: ATTEND_ALL or ATTEND_LATER
ATTEND_ALL, ATTEND_LATER = "all", "later"  # later: all but the first
BACK_OFF = "x-extproc-back-off"  # milliseconds before the second try in a row at one target
TIMEOUT = "x-extproc-timeout"  # milliseconds that a try may take to begin its answer
PROVIDER = "x-extproc-provider"  # attach mode only: where the owner's routes should send the request

# Response header of an answer that Envoy itself gave inside the hop, where a provider's answer should be. Its value
# says why: connect, reset, timeout, overflow, unhealthy, credential or other.
HOP = "x-extproc-hop"

# Dynamic metadata that gives Envoy's priority_group cluster specifier the order of the tries.
ORDER_NAMESPACE = "ai.groups"
ORDER_KEY = "priority_groups"
# Dynamic metadata of a try's access log entry: id, attempt, targets, timeout.
LOG_NAMESPACE = "ai"

TRY_PREFIX = "try-"
"""A provider's internal listener, and the cluster that leads into it."""

GATEWAY_LOG = "gateway"
"""`log_name` of the public listener's gRPC access log; a try's is the name of its internal listener."""

ATTEMPT_COUNT = "x-envoy-attempt-count"
RESPONSE_ATTRIBUTES = ("upstream.request_attempt_count", "response.code_details")
"""What Envoy reports of the answer with its headers."""


def try_cluster(provider: str) -> str:
    """The cluster of a try at `provider`."""
    return TRY_PREFIX + provider


def encode_targets(targets: Sequence[Target]) -> str:
    """The value of `TARGETS`: the name of each try's target, in order."""
    return ",".join(quote(target.name) for target in targets)


def decode_targets(value: str) -> list[str]:
    """The name of each try's target."""
    return [unquote(name) for name in value.split(",")]


@dataclass(slots=True, frozen=True)
class Edit:
    """What one try changes in the body that the gateway attachment sent on: top-level fields to set and to take out."""

    fields: Mapping[str, Any]
    removed: Sequence[str] = ()


def encode_edits(edits: Sequence[Edit]) -> str:
    """The value of `EDITS`: printable ASCII."""
    return json.dumps([[edit.fields, edit.removed] for edit in edits], separators=(",", ":"))


def decode_edits(value: str) -> list[Edit]:
    """The edit of each try. Raises ValueError when `value` was not made by `encode_edits`."""
    return [Edit(fields, removed) for fields, removed in json.loads(value)]
