"""What the gateway attachment, Envoy and the attempt attachment tell each other. All of it is in this file.

Headers under `PREFIX` are internal: Envoy strips them from what clients send before any filter runs, from what leaves
for a provider, from what a provider answers, and from what goes back to the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, unquote

from extproc.exchange import Target

PREFIX = "x-extproc-"

# gRPC metadata of an ext_proc stream: which attachment is calling.
ATTACHMENT = "x-extproc-attachment"
GATEWAY, ATTEMPT, ATTACH = "gateway", "attempt", "attach"

# Request headers, from the gateway attachment to the tries.
ID = "x-extproc-id"  # the exchange's id
TARGETS = "x-extproc-targets"  # encode_targets(): what each try stands for
TRANSLATE = "x-extproc-translate"  # present: this request's tries need the attempt attachment
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
    """The value of `TARGETS`: for each try, in order, the target's name and its model's name at the provider."""
    return ",".join(f"{quote(target.name)}={quote(target.model)}" for target in targets)


def decode_targets(value: str) -> list[tuple[str, str]]:
    """(name, model) of each try. Raises ValueError when `value` was not made by `encode_targets`."""
    pairs = [item.split("=") for item in value.split(",")]
    return [(unquote(name), unquote(model)) for name, model in pairs]
