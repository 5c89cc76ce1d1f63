"""The headers that instruct Envoy's router to retry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from extproc.words import contract

# Envoy's names of each retry condition. A failure inside the hop reaches the public listener as an answer of Envoy's
# own, with the reason in the name of a header. Only a try that timed out is a reset for the listener.
_RETRY_ON: Mapping[str, Sequence[str]] = {
    "connect": ("connect-failure", "refused-stream"),
    "reset": ("reset",),
    "timeout": ("reset",),
}
_HOP_REASONS: Mapping[str, Sequence[str]] = {
    "connect": ("connect", "unhealthy", "overflow", "credential", "unsupported"),
    "reset": ("reset",),
    "timeout": ("timeout",),
}
_SERVER_ERRORS = ("500", "501", "502", "503", "504", "505", "507", "508", "520", "521", "522", "523", "524", "529")


@lru_cache(maxsize=256)
def retry_headers(conditions: tuple[str, ...]) -> Mapping[str, str]:
    """The request headers that make Envoy's router retry on `conditions`, the values of RetrySettings.on."""
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
