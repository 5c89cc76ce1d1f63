"""Sends a judged request on its way: what Envoy is told, and what the tries must know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from extproc import contract
from extproc.actions import Continue
from extproc.auth import CREDENTIAL_HEADERS, AttributionSettings
from extproc.exchange import Exchange, Target

# What each retry condition is to Envoy. A failure inside the hop reaches the public listener as an answer of Envoy's
# own with its reason in the name of a header; only a try that ran out of time is a reset there.
_RETRY_ON: Mapping[str, Sequence[str]] = {
    "connect": ("connect-failure", "refused-stream"),
    "reset": ("reset",),
    "timeout": ("reset",),
}
_HOP_REASONS: Mapping[str, Sequence[str]] = {
    "connect": ("connect", "unhealthy", "overflow", "credential"),
    "reset": ("reset",),
    "timeout": ("timeout",),
}
_SERVER_ERRORS = ("500", "501", "502", "503", "504", "505", "507", "508", "520", "521", "522", "523", "524", "529")

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


class Forward:
    """Writes `order` and `onward`, and says that the request is on its way."""

    def __init__(self, attribution: AttributionSettings) -> None:
        self._label_prefix = attribution.prefix if attribution.strip else None

    def __call__(self, exchange: Exchange) -> None:
        order = exchange.targets[: exchange.chain.retry.attempts]
        exchange.order = order
        self._edit(exchange, order)
        body = patch(exchange.body, exchange.edits) if exchange.edits else None
        if exchange.attached:
            headers = {contract.PROVIDER: ",".join(target.provider for target in order)}
            clusters: tuple[str, ...] = ()
        else:
            headers = self._headers(exchange, order)
            clusters = tuple(contract.try_cluster(target.provider) for target in order)
        exchange.onward = Continue(headers, self._removed(exchange), body, reroute=True, order=clusters)
        exchange.forwarded = True

    def _headers(self, exchange: Exchange, order: Sequence[Target]) -> dict[str, str]:
        retry = exchange.chain.retry
        timeout = retry.per_try_timeout_stream if exchange.ask.stream else retry.per_try_timeout
        headers = {
            contract.ID: exchange.id,
            contract.TARGETS: contract.encode_targets(order),
            contract.TIMEOUT: (milliseconds := str(int(timeout * 1000))),
            "x-envoy-upstream-rq-per-try-timeout-ms": milliseconds,
        }
        if len({target.model for target in order}) > 1:
            headers[contract.TRANSLATE] = "1"
        if len(order) > 1:
            headers["x-envoy-max-retries"] = str(len(order) - 1)
            headers |= retry_headers(tuple(retry.on))
        return headers

    def _edit(self, exchange: Exchange, order: Sequence[Target]) -> None:
        """What every try has in common is written here, once."""
        model = order[0].model
        if model != exchange.ask.model and all(target.model == model for target in order):
            exchange.edits["model"] = model
        if exchange.ask.stream and (edit := exchange.dialect.usage_request(exchange.json)):
            exchange.edits |= edit
            exchange.usage_hidden = True

    def _removed(self, exchange: Exchange) -> tuple[str, ...]:
        """Attach mode has no inner listener that strips these, so they are always removed here."""
        prefix = self._label_prefix
        return tuple(
            name
            for name in exchange.request.headers
            if name in CREDENTIAL_HEADERS or (prefix is not None and name.startswith(prefix))
        )


def patch(body: bytes, edits: Mapping[str, Any]) -> bytes:
    """`body`, a JSON object, with some of its fields set; the others stay as they were, byte for byte."""
    fields: dict[str, Any] = {**_decode_fields(body), **edits}
    return _encode(fields)


@lru_cache(maxsize=256)
def retry_headers(conditions: tuple[str, ...]) -> Mapping[str, str]:
    """The request headers that make Envoy's router retry on `conditions`, which are those of RetrySettings.on."""
    words: list[str] = []
    statuses: list[str] = []
    headers: list[str] = []
    for condition in conditions:
        words += _RETRY_ON.get(condition, ())
        headers += [f"{contract.HOP}-{reason}" for reason in _HOP_REASONS.get(condition, ())]
        if condition == "5xx":
            statuses += _SERVER_ERRORS
        elif condition.isdecimal():
            statuses.append(condition)
    found = {"x-envoy-retry-on": ",".join([*dict.fromkeys(words), "retriable-status-codes", "retriable-headers"])}
    if statuses:
        found["x-envoy-retriable-status-codes"] = ",".join(statuses)
    if headers:
        found["x-envoy-retriable-header-names"] = ",".join(headers)
    return found
